#!/usr/bin/env bash
# Prints the folder of a Debian root with the Erlang/OTP release asked for, making it on first use:
#   scripts/otp-root.sh 27
# It is kept in ${XDG_CACHE_HOME:-~/.cache}/beamtrace/otp-RELEASE and made in one step (a half-made one is never used).
# Needs root, apt or debootstrap, and about 300 MB. Messages go to stderr.
set -euo pipefail

release=${1:?usage: scripts/otp-root.sh 27|29}
case $release in
  27) suites=(trixie) ;;
  29) suites=(sid forky) ;;
  *) echo "no Debian suite is known to have Erlang/OTP $release" >&2; exit 2 ;;
esac
packages=(erlang-base erlang-dev erlang-crypto erlang-parsetools erlang-runtime-tools erlang-ssl
  erlang-syntax-tools erlang-tools elixir rebar3 openssl)

cache=${XDG_CACHE_HOME:-$HOME/.cache}/beamtrace
target=$cache/otp-$release
say() { echo "[otp-$release] $*" >&2; }

otp_of() {
  chroot "$1" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
    erl -noshell -eval 'io:format("~s", [erlang:system_info(otp_release)]),
      [{_, _} = {A, [_ | _] = code:lib_dir(A)} || A <- [crypto, ssl, runtime_tools, tools, syntax_tools, parsetools]], halt().' 2>/dev/null || true
}

[ "$(id -u)" = 0 ] || { say "making or entering a Debian root takes root; run this as root or by sudo"; exit 1; }
mkdir -p "$cache"
exec 9>"$cache/otp-$release.lock"
flock 9
if [ -d "$target" ]; then
  if [ "$(otp_of "$target")" = "$release" ]; then echo "$target"; exit 0; fi
  say "what is in $target does not run Erlang/OTP $release: making it again"
  rm -rf --one-file-system "$target"
fi

apt=(apt-get -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -o Acquire::http::Timeout=60)
export DEBIAN_FRONTEND=noninteractive
if ! command -v debootstrap >/dev/null; then
  command -v apt-get >/dev/null || { say "this machine has neither debootstrap nor apt-get"; exit 1; }
  say "apt-get install debootstrap"
  { "${apt[@]}" update; "${apt[@]}" install -y --no-install-recommends debootstrap; } >"$cache/debootstrap.log" 2>&1 ||
    { tail -20 "$cache/debootstrap.log" >&2; exit 1; }
fi
# The mirror that this machine itself uses, where it is a Debian one; else debootstrap's own default.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' 2>/dev/null | head -1 || true)
scripts=/usr/share/debootstrap/scripts

for suite in "${suites[@]}"; do
  work=$(mktemp -d "$cache/otp-$release.XXXXXX")
  log=$cache/otp-$release.$suite.log
  say "making a $suite root ($(date +%T))"
  script=$scripts/$suite
  [ -e "$script" ] || script=$scripts/sid
  if {
    debootstrap --variant=minbase "$suite" "$work" $mirror "$script" &&
      echo force-unsafe-io >"$work/etc/dpkg/dpkg.cfg.d/unsafe-io" &&
      printf '#!/bin/sh\nexit 101\n' >"$work/usr/sbin/policy-rc.d" && chmod +x "$work/usr/sbin/policy-rc.d" &&
      { apt-config dump Acquire | grep -E '^Acquire::(https?|Check|Force)' >"$work/etc/apt/apt.conf.d/00host" || true; } &&
      unshare --mount --propagation private bash -euc "
        mount --rbind /proc '$work/proc'; mount --rbind /dev '$work/dev'
        exec chroot '$work' ${apt[*]} install -y --no-install-recommends ${packages[*]}" &&
      chroot "$work" apt-get clean
  } >"$log" 2>&1; then
    found=$(otp_of "$work")
    if [ "$found" = "$release" ]; then
      chmod 755 "$work"
      mv "$work" "$target"
      say "made ($(date +%T))"
      echo "$target"
      exit 0
    fi
    say "$suite has Erlang/OTP ${found:-that does not run}, not $release"
  else
    say "the $suite root could not be made; the end of $log:"
    tail -15 "$log" >&2
  fi
  rm -rf --one-file-system "$work"
done
say "there is no Erlang/OTP $release to test with"
exit 1

#!/usr/bin/env bash
# Proves that the README's two commands need nothing but Node, npm and apt: makes a minimal Debian with neither Erlang nor a
# compiler, puts this machine's Node and npm into it, clones the project's last commit there and runs them.
#   scripts/prove-fresh-machine.sh [CASE...]
# Cases (default: demo test):
#   demo        npm run demo, on the bare machine: it must install Erlang and end well
#   test        npm test, on another bare machine
#   no-erlang   without any apt source: the demo must replay its recording, npm test must fail and say what is missing
#   user        npm test as a user without root or sudo, on the machine that `test` (or a run of apt) has prepared
# Needs root and debootstrap (installed by apt when missing). The bare Debian is kept in ${XDG_CACHE_HOME:-~/.cache}/beamtrace/fresh;
# each case works on a copy, in its own mount and process namespaces, and removes it. Output of the commands: $LOGS (default a
# temporary folder, printed).
set -uo pipefail

project=$(cd "$(dirname "$0")/.." && pwd -P)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/beamtrace
base=$cache/fresh
logs=${LOGS:-$(mktemp -d -t beamtrace-fresh-XXXXXX)}
say() { printf '[fresh] %s\n' "$*"; }
die() { say "$*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || die "needs root"
[ $# -gt 0 ] || set -- demo test
mkdir -p "$cache" "$logs"

make_base() {
  if ! command -v debootstrap >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    { apt-get -q update && apt-get -q install -y --no-install-recommends debootstrap; } >"$logs/debootstrap.log" 2>&1 ||
      die "debootstrap cannot be installed: $logs/debootstrap.log"
  fi
  local work mirror
  work=$(mktemp -d "$base.XXXXXX")
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' 2>/dev/null | head -1)
  say "making a bare Debian 12"
  debootstrap --variant=minbase bookworm "$work" $mirror >"$logs/base.log" 2>&1 || die "debootstrap failed: $logs/base.log"
  chmod 755 "$work"
  mv "$work" "$base"
}

# The running machine's Node, npm and its settings for the registries; nothing else of it.
add_node() {
  local root=$1 node npm file
  node=$(readlink -f "$(command -v node)")
  npm=$(npm root -g 2>/dev/null)/npm
  install -D -m 755 "$node" "$root/usr/local/bin/node"
  mkdir -p "$root/usr/local/lib/node_modules"
  cp -a "$npm" "$root/usr/local/lib/node_modules/npm"
  ln -s ../lib/node_modules/npm/bin/npm-cli.js "$root/usr/local/bin/npm"
  ln -s ../lib/node_modules/npm/bin/npx-cli.js "$root/usr/local/bin/npx"
  for file in "$HOME/.npmrc" /etc/npmrc "$(npm config get globalconfig 2>/dev/null)" /usr/local/etc/npmrc; do
    [ -f "$file" ] && install -D -m 644 "$file" "$root${file/#$HOME//root}"
  done
  [ -f /usr/etc/npmrc ] && install -D -m 644 /usr/etc/npmrc "$root/usr/local/etc/npmrc"
  for file in /etc/ssl/certs/ca-certificates.crt "${NODE_EXTRA_CA_CERTS:-}" "${SSL_CERT_FILE:-}"; do
    [ -f "$file" ] && install -D -m 644 "$file" "$root$file"
  done
  cp -L /etc/hosts /etc/resolv.conf "$root/etc/"
  apt-config dump Acquire | grep -E '^Acquire::(https?|Check|Force)' >"$root/etc/apt/apt.conf.d/00host"
  chroot "$root" node --version >/dev/null || die "this machine's node does not run on Debian 12"
}

bare_machine() {
  local root
  root=$(mktemp -d "$cache/fresh-run.XXXXXX")
  chmod 755 "$root"
  cp -a "$base/." "$root/"
  add_node "$root" >&2
  git clone -q --no-hardlinks "$project" "$root/root/beamtrace" || die "git clone failed"
  for tool in erl elixir cc gcc make python3 git; do
    [ ! -e "$root/usr/bin/$tool" ] || die "the bare machine has $tool"
  done
  echo "$root"
}

# inside ROOT USER FOLDER COMMAND...: with an environment of its own; what it starts ends with it.
inside() {
  local root=$1 user=$2 folder=$3 home=/root pass=() name
  shift 3
  [ "$user" = 0 ] || home=/home/user
  for name in $(compgen -e | grep -iE '^(https?_proxy|no_proxy|npm_config_(registry|.*proxy|cafile)|node_extra_ca_certs|ssl_cert_file)$'); do
    pass+=("$name=${!name}")
  done
  unshare --mount --pid --fork --kill-child --propagation private bash -euc '
    mount -t proc proc "$1/proc"; mount --rbind /dev "$1/dev"
    user=$2; folder=$3; root=$1; shift 3
    exec chroot --userspec="$user:$user" "$root" /usr/bin/env -i "$@"' inside "$root" "$user" "$folder" \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=$home TERM=dumb "${pass[@]}" \
    timeout --kill-after=30 30m /bin/sh -c 'cd "$0" && exec "$@"' "$folder" "$@" </dev/null
}

failed=0
# expect WHAT LOG SECONDS OK
report() {
  printf '[fresh] %-52s %4ds  %s\n' "$1" "$3" "$([ "$4" = 0 ] && echo ok || echo "FAILED, see $2")"
  [ "$4" = 0 ] || { failed=1; tail -25 "$2"; }
}

roots=()
cleanup() { for root in "${roots[@]}"; do rm -rf --one-file-system "$root"; done; }
trap cleanup EXIT
trap 'exit 130' INT TERM

[ -d "$base" ] || make_base
prepared=
for case in "$@"; do
  start=$SECONDS
  log=$logs/$case.log
  case $case in
    demo | test)
      root=$(bare_machine) || exit 1
      roots+=("$root")
      command=(npm run demo)
      [ "$case" = demo ] || command=(npm test)
      start=$SECONDS
      inside "$root" 0 /root/beamtrace "${command[@]}" >"$log" 2>&1
      code=$?
      [ -x "$root/usr/bin/erl" ] || { echo "Erlang was not installed" >>"$log"; code=1; }
      report "${command[*]}, bare machine" "$log" $((SECONDS - start)) $code
      [ "$case" = test ] && prepared=$root
      ;;
    no-erlang)
      root=$(bare_machine) || exit 1
      roots+=("$root")
      rm -rf "$root"/etc/apt/sources.list* "$root"/var/lib/apt/lists/*
      start=$SECONDS
      inside "$root" 0 /root/beamtrace npm run demo >"$log" 2>&1
      code=$?
      grep -qi "replay" "$log" || code=1
      report "npm run demo, no Erlang to be had" "$log" $((SECONDS - start)) $code
      start=$SECONDS
      inside "$root" 0 /root/beamtrace npm test >"$log.test" 2>&1
      code=$?
      if [ $code != 0 ] && grep -q "apt-get install" "$log.test"; then code=0; else code=1; fi
      report "npm test says what is missing and fails" "$log.test" $((SECONDS - start)) $code
      start=$SECONDS
      inside "$root" 0 /root/beamtrace env BEAMTRACE_WITHOUT_ERLANG=1 npm test >"$log.without" 2>&1
      report "BEAMTRACE_WITHOUT_ERLANG=1 npm test" "$log.without" $((SECONDS - start)) $?
      ;;
    user)
      [ -n "$prepared" ] || die "the case user comes after the case test"
      chroot "$prepared" useradd --create-home --uid 1000 user
      git clone -q --no-hardlinks "$project" "$prepared/home/user/beamtrace"
      cp "$HOME/.npmrc" "$prepared/home/user/" 2>/dev/null
      chown -R 1000:1000 "$prepared/home/user"
      start=$SECONDS
      inside "$prepared" 1000 /home/user/beamtrace npm test >"$log" 2>&1
      report "npm test as a user without root" "$log" $((SECONDS - start)) $?
      ;;
    *) die "no case $case; there are: demo test no-erlang user" ;;
  esac
done
say "logs: $logs"
exit $failed

#!/usr/bin/env bash
# Runs a command so that the test nodes it starts are of another Erlang/OTP release:
#   scripts/with-otp.sh 27 npx vitest run
# The release's root is made on first use (scripts/otp-root.sh). What is mounted into it is mounted in a private namespace:
# nothing of that is seen outside, and nothing is left when the command ends. Needs root.
set -euo pipefail

release=${1:?usage: scripts/with-otp.sh RELEASE COMMAND...}
shift
project=$(cd "$(dirname "$0")/.." && pwd -P)
root=$("$project/scripts/otp-root.sh" "$release")

export BEAMTRACE_OTP_ROOT=$root BEAMTRACE_TEST_OTP=$release
PROJECT=$project exec unshare --mount --propagation private bash -euc '
  root=$1; shift
  bind() { mkdir -p "$root$1"; mountpoint -q "$root$1" || mount --rbind "$1" "$root$1"; }
  # Files that a test hands to its node by path are found at the same path: temporary ones and the project itself.
  for folder in /proc /dev /tmp "${TMPDIR:-/tmp}" "$PROJECT"; do bind "$folder"; done
  mkdir -p "$root$HOME"
  # Build tools of the release start Node; it is this machine'"'"'s own, which runs wherever there is a libstdc++ of its time or later.
  touch "$root/usr/local/bin/node" && mount --bind "$(readlink -f "$(command -v node)")" "$root/usr/local/bin/node"
  unset PROJECT
  exec "$@"' with-otp "$root" "$@"

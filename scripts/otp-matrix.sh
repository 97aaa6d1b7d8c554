#!/usr/bin/env bash
# Runs the tests that talk to nodes against each Erlang/OTP release that beamtrace supports besides the machine's own:
#   scripts/otp-matrix.sh [RELEASE...]        (default: 27 29)
# Fails when a test fails or when a release cannot be had; nothing is skipped silently. Needs root.
set -uo pipefail
cd "$(dirname "$0")/.."

[ $# -gt 0 ] || set -- 27 29
failed=()
for release in "$@"; do
  echo "== Erlang/OTP $release"
  BEAMTRACE_TEST_REPORT=${BEAMTRACE_REPORT_DIR:+$BEAMTRACE_REPORT_DIR/otp-$release.json} \
    scripts/with-otp.sh "$release" node_modules/.bin/vitest run || failed+=("$release")
done
[ ${#failed[@]} = 0 ] || { echo "failed on Erlang/OTP ${failed[*]}" >&2; exit 1; }

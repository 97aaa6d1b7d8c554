#!/usr/bin/env bash
# Runs the tests with each release of Node.js that beamtrace supports besides the machine's own:
#   scripts/node-matrix.sh [RELEASE...]       (default: 20.19 22 24)
# With BEAMTRACE_WITHOUT_ERLANG=1 only those that need no Erlang. Fails when a test fails or when a release cannot be had.
set -uo pipefail
cd "$(dirname "$0")/.."

[ $# -gt 0 ] || set -- 20.19 22 24
failed=()
for release in "$@"; do
  echo "== Node.js $release: $(scripts/with-node.sh "$release" node --version)"
  BEAMTRACE_TEST_REPORT=${BEAMTRACE_REPORT_DIR:+$BEAMTRACE_REPORT_DIR/node-$release.json} \
    scripts/with-node.sh "$release" node node_modules/vitest/vitest.mjs run || failed+=("$release")
done
[ ${#failed[@]} = 0 ] || { echo "failed on Node.js ${failed[*]}" >&2; exit 1; }

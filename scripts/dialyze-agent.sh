#!/usr/bin/env bash
# Dialyzer over the agent, the native tracer's module, the compile server and the build tools' part. Its table of OTP's own modules is made once a release and kept in ${XDG_CACHE_HOME:-~/.cache}/beamtrace.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v dialyzer >/dev/null || { echo "no dialyzer here: apt-get install erlang-dialyzer" >&2; exit 1; }
version=$(erl -noshell -eval 'io:format("~s", [erlang:system_info(version)]), halt().')
plt=${XDG_CACHE_HOME:-$HOME/.cache}/beamtrace/dialyzer-erts-$version-compiler.plt
if [ ! -e "$plt" ]; then
  mkdir -p "$(dirname "$plt")"
  # Exit code 2 only says that OTP itself refers to types elsewhere.
  dialyzer --build_plt --output_plt "$plt.new" --apps erts kernel stdlib compiler >/dev/null || [ $? = 2 ]
  mv "$plt.new" "$plt"
fi
dialyzer --plt "$plt" --src -Wunmatched_returns -Wunknown -I beam/agent/include beam/agent/src/*.erl beam/native/erl/*.erl beam/transform/src/*.erl beam/runtime/src/*.erl beam/build/src/*.erl
# The runtime of instrumented code has builds; the one above does nothing.
dialyzer --plt "$plt" --src -DON -DPORTABLE -Wunmatched_returns -Wunknown -Wextra_return -Wmissing_return beam/runtime/src/*.erl

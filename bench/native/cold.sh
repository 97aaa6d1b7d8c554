#!/bin/sh
# What the native tracer's callbacks cost with warm and with cold caches (x86-64): cold.sh [ROUNDS]. Needs gcc and Erlang's headers.
set -eu
cd "$(dirname "$0")"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
include=${ERL_INCLUDE:-$(erl -noshell -eval 'io:put_chars(filename:join([code:root_dir(), "usr", "include"])), halt().')}
${CC:-gcc} -std=c11 -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -O2 -Wall -Wextra -Werror -fno-plt -I../../beam/native/src -I../../stress/native -I"$include" \
  cold.c ../../beam/native/src/beamtrace_nif.c -o "$out/cold" -lpthread
for _ in $(seq "${1:-3}"); do
  for sizes in "0 0" "64 64" "256 512" "512 1500"; do
    # shellcheck disable=SC2086
    "$out/cold" $sizes
  done
done

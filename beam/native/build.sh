#!/bin/sh
# Builds the native tracer for linux-x64, and for linux-arm64 where a cross compiler is installed, into prebuilt/.
# The objects need no symbol of a glibc later than 2.31 and nothing but libc; `check.sh` says so. Usage: beam/native/build.sh
set -eu
cd "$(dirname "$0")"
ERL_INCLUDE=${ERL_INCLUDE:-$(erl -noshell -eval 'io:put_chars(filename:join([code:root_dir(), "usr", "include"])), halt().')}
export ERL_INCLUDE
build() {
  command -v "$1" >/dev/null || { echo "$1 is not installed; prebuilt/$2 stays as it is" >&2; return 0; }
  mkdir -p "prebuilt/$2"
  CC=$1 CFLAGS="-s $3" ./compile.sh src/beamtrace_nif.c "prebuilt/$2/beamtrace_nif.so"
}
build "${CC:-gcc}" linux-x64 ""
build "${CC_ARM64:-aarch64-linux-gnu-gcc}" linux-arm64 -mno-outline-atomics

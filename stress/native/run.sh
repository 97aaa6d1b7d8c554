#!/bin/sh
# The native tracer's C code outside of a VM: rings.c (the rings by themselves), clock.c (the clock) and torture.c (the whole library, with a small VM around it)
# under TSan, ASan with UBSan, and valgrind where it is installed; the prebuilt libraries as they are shipped, also on musl (musl-gcc) and
# arm64 (cross compiler and qemu-aarch64-static) where these are installed. Usage: stress/native/run.sh [SECONDS]: of each of the runs.
set -eu
cd "$(dirname "$0")"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
seconds=${1:-5}
include=${ERL_INCLUDE:-$(erl -noshell -eval 'io:put_chars(filename:join([code:root_dir(), "usr", "include"])), halt().')}
flags="-std=c11 -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -g -O1 -Wall -Wextra -Werror -I../../beam/native/src -I$include"
linked="-DBEAMTRACE_LINKED torture.c ../../beam/native/src/beamtrace_nif.c"
prebuilt=../../beam/native/prebuilt

for sanitizer in thread address,undefined; do
  # gcc warns that TSan does not know fences; each of ours stands beside an operation that it knows.
  ${CC:-gcc} $flags -Wno-tsan -fsanitize=$sanitizer -fno-sanitize-recover=all rings.c -o "$out/rings" -lpthread
  ${CC:-gcc} $flags -Wno-tsan -fsanitize=$sanitizer -fno-sanitize-recover=all $linked -o "$out/torture" -lpthread -ldl
  for start in 0 0xffffff00 0x1fffffffffff00 0xffffffffffffff00; do
    echo "$sanitizer, rings from $start:"
    "$out/rings" $(((seconds + 3) / 4)) $start
  done
  ${CC:-gcc} $flags -Wno-tsan -fsanitize=$sanitizer -fno-sanitize-recover=all clock.c -o "$out/clock" -lpthread
  echo "$sanitizer, clock:"
  "$out/clock" $(((seconds + 3) / 4))
  echo "$sanitizer, library:"
  "$out/torture" "$seconds"
done

${CC:-gcc} $flags -O2 clock.c -o "$out/clock" -lpthread
"$out/clock" "$seconds" used

if command -v valgrind >/dev/null; then
  ${CC:-gcc} $flags rings.c -o "$out/rings" -lpthread
  ${CC:-gcc} $flags $linked -o "$out/torture" -lpthread -ldl
  echo "valgrind:"
  # It runs one thread at a time; without a fair turn for each nobody ends.
  valgrind -q --fair-sched=yes --error-exitcode=1 --leak-check=full "$out/rings" "$seconds"
  valgrind -q --fair-sched=yes --error-exitcode=1 --leak-check=full "$out/torture" "$seconds"
fi

run_prebuilt() {
  name=$1 compiler=$2 library=$3
  shift 3
  command -v "$compiler" >/dev/null || { echo "$name: no $compiler, left out"; return 0; }
  [ $# = 0 ] || command -v "$1" >/dev/null || { echo "$name: no $1, left out"; return 0; }
  "$compiler" $flags -rdynamic torture.c -o "$out/$name" -lpthread -ldl
  echo "$name:"
  "$@" "$out/$name" "$seconds" "$prebuilt/$library/beamtrace_nif.so"
}
[ "$(uname -m)" != x86_64 ] || run_prebuilt prebuilt "${CC:-gcc}" linux-x64
[ "$(uname -m)" != x86_64 ] || run_prebuilt musl musl-gcc linux-x64
run_prebuilt arm64 aarch64-linux-gnu-gcc linux-arm64 qemu-aarch64-static -L /usr/aarch64-linux-gnu

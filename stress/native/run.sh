#!/bin/sh
# The rings of the native tracer under the sanitizers, and under valgrind where it is installed. Usage: stress/native/run.sh [SECONDS]
set -eu
cd "$(dirname "$0")"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
flags="-std=c11 -D_POSIX_C_SOURCE=200809L -g -O1 -Wall -Wextra -Werror -I../../beam/native/src"
for sanitizer in thread address,undefined; do
  ${CC:-gcc} $flags -fsanitize=$sanitizer -fno-sanitize-recover=all rings.c -o "$out/rings" -lpthread
  echo "$sanitizer:"
  "$out/rings" "${1:-5}"
done
if command -v valgrind >/dev/null; then
  ${CC:-gcc} $flags rings.c -o "$out/rings" -lpthread
  echo "valgrind:"
  valgrind -q --error-exitcode=1 --leak-check=full "$out/rings" "${1:-5}"
fi

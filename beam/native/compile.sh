#!/bin/sh
# Compiles the native tracer: compile.sh SOURCE OUTPUT, with CC, CFLAGS and ERL_INCLUDE (where erl_nif.h is) from the environment.
set -eu
include=${ERL_INCLUDE:-$(erl -noshell -eval 'io:put_chars(filename:join([code:root_dir(), "usr", "include"])), halt().')}
# shellcheck disable=SC2086
exec "${CC:-gcc}" -std=c11 -D_POSIX_C_SOURCE=200809L -O2 -g0 -fPIC -fvisibility=hidden -fno-plt -Wall -Wextra -Werror ${CFLAGS:-} \
  -I"$include" "$1" -shared -nostdlib -Wl,-z,now,-z,relro,--build-id=none -o "$2"

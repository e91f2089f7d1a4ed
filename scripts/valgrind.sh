#!/bin/sh
# valgrind.sh PREFIX: the installation below PREFIX in apache2 -X under valgrind, with a fixed series of requests, under each MPM.
set -eu
repo=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
exec /usr/bin/python3 "$repo/tests/valgrind/run.py" "$1" "$("${APXS:-apxs}" -q LIBEXECDIR)" prefork worker event

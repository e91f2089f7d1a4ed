#!/bin/sh
# test.sh MPM NAME: cargo's tests. Without a choice, all of them; with one, the tests that have this MPM (or none) and NAME in their names.
set -eu
mpm=${1:-} name=${2:-}
cargo=${CARGO:-cargo}
case $mpm in '' | prefork | worker | event) ;; *) echo "test: MPM is prefork, worker or event" >&2; exit 1 ;; esac
# A test waits for processes more than it computes.
RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(($(nproc) + 1))}
export RUST_TEST_THREADS

if [ -z "$mpm$name" ]; then
    exec "$cargo" test --workspace --no-fail-fast </dev/null
fi
others=$(for m in prefork worker event; do [ "$m" = "$mpm" ] || printf '%s|' "$m"; done)
list=$("$cargo" test -q --test httpd -- --list --format terse "$name" </dev/null | sed -n 's/: test$//p')
[ -z "$mpm" ] || list=$(echo "$list" | grep -vE "::(${others%|})\$" || true)
[ -n "$list" ] || { echo "test: no test has ${name:-any name} and ${mpm:-any MPM}" >&2; exit 1; }
# shellcheck disable=SC2086
exec "$cargo" test --test httpd --no-fail-fast -- --exact $list </dev/null

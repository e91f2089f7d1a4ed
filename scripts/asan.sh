#!/bin/sh
# asan.sh: the unit tests of every crate but the worker under the address sanitizer, on the installed
# toolchain.
set -eu
repo=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
cd "$repo"
cargo=${CARGO:-cargo}
target=${CARGO_TARGET_DIR:-$repo/target}/asan
host=$(rustc -vV | sed -n 's/^host: //p')
export RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="$target"
# The sanitizer keeps code that no test calls, with references to functions that only httpd has.
export RUSTFLAGS="-Zsanitizer=address -Clink-arg=-Wl,--unresolved-symbols=ignore-all"
$cargo test --no-run --workspace --exclude drover-worker --lib --bins --target "$host"

# A library with an empty object for each of those names lets the test programs start. A test that used
# one would crash.
tests=$($cargo test --no-run --workspace --exclude drover-worker --lib --bins --target "$host" --message-format=json -q |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p')
[ -n "$tests" ]
for test in $tests; do nm -D --undefined-only "$test"; done | awk '$2 ~ /^(ap|apr|unixd)_/ { print "char " $2 "[64];" }' | sort -u >"$target/hollow.c"
cc -shared -fPIC -o "$target/hollow.so" "$target/hollow.c"

for test in $tests; do
    echo "asan: $(basename "$test")"
    (cd "$repo" && LD_PRELOAD="$target/hollow.so" CARGO_MANIFEST_DIR="$repo" "$test" -q)
done

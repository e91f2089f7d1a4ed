#!/bin/sh
# fuzz.sh SECONDS [TARGET...]: builds the fuzz targets with the address sanitizer on the installed
# toolchain and runs each for that time. The corpus is kept in TARGET/fuzz/corpus for the next run.
# The first input that makes a target fail ends the run.
set -eu
seconds=$1
shift
repo=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
cargo=${CARGO:-cargo}
target=${CARGO_TARGET_DIR:-$repo/target}
case $target in /*) ;; *) target=$PWD/$target ;; esac
target=$target/fuzz
# shellcheck disable=SC2046  # a list of words
[ $# -gt 0 ] || set -- $(sed -n 's/^name = "\(.*\)"$/\1/p' "$repo/fuzz/Cargo.toml" | grep -v '^mod_drover-fuzz$')

# The flags of cargo-fuzz, so that no other program is needed. RUSTC_BOOTSTRAP enables the sanitizers on
# the stable compiler.
host=$(rustc -vV | sed -n 's/^host: //p')
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-simplifycfg-branch-fold-threshold=0 \
-Zsanitizer=address -Cdebug-assertions -Coverflow-checks -Ccodegen-units=1 -Cdebuginfo=line-tables-only --cfg fuzzing"
(cd "$repo/fuzz" && RUSTC_BOOTSTRAP=1 RUSTFLAGS="$flags" CARGO_TARGET_DIR="$target" "$cargo" build --release --bins --target "$host")

for name in "$@"; do
    corpus=$target/corpus/$name
    mkdir -p "$corpus"
    log=$target/$name.log
    echo "fuzz: $name for $seconds s"
    if ! ASAN_OPTIONS=detect_odr_violation=0 "$target/$host/release/$name" -max_total_time="$seconds" -max_len=4096 -timeout=10 \
        -rss_limit_mb=2048 -artifact_prefix="$target/$name-" "$corpus" >"$log" 2>&1 </dev/null; then
        tail -n 60 "$log"
        echo "fuzz: $name failed; the input is one of $target/$name-*, the whole output $log" >&2
        exit 1
    fi
    # A target that stops at its first comparison proves nothing, so its coverage is checked.
    reach=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
    [ "${reach:-0}" -ge 60 ] || { echo "fuzz: $name reached ${reach:-no} places only" >&2; exit 1; }
    echo "fuzz: $name reached $reach places, $(sed -n 's/^Done \([0-9]*\) runs.*/\1/p' "$log") runs"
done

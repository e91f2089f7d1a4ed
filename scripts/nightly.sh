#!/bin/sh
# nightly.sh [STEP...]: the checks that take too long for each change. Without a step, all of them.
#
# Every step is run, also after one has failed. A step that cannot run on this machine says why, and
# is listed as not run at the end. Exit status 1 when a step has failed.
set -eu
repo=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
cd "$repo"
cargo=${CARGO:-cargo}
target=${CARGO_TARGET_DIR:-$repo/target}
case $target in /*) ;; *) target=$PWD/$target ;; esac
PATH=$target/tools/bin:$PATH
steps="licences advisories minimal_versions msrv miri asan fuzz"
# The exit status of a step that cannot run here.
not_run=77
cannot() { echo "nightly: $*"; exit "$not_run"; }

toolchains() { rustup toolchain list 2>/dev/null | cut -d' ' -f1; }

need_deny() {
    $cargo deny --version >/dev/null 2>&1 ||
        $cargo install -q --locked --debug --root "$target/tools" cargo-deny@0.20.2
}

# deny.toml: licences, sources, banned crates.
licences() {
    need_deny
    $cargo deny --offline check licenses bans sources
}

# Known vulnerabilities, from RustSec's database.
advisories() {
    need_deny
    if $cargo deny fetch db >/dev/null 2>&1; then
        $cargo deny check advisories
        return
    fi
    ls "${CARGO_HOME:-$HOME/.cargo}"/advisory-dbs/*/.git >/dev/null 2>&1 ||
        cannot "RustSec's database of advisories could not be fetched, and there is no copy on this machine"
    echo "nightly: RustSec's database could not be fetched; using the copy on this machine"
    $cargo deny --offline check advisories
}

# The oldest versions that the manifests allow. The lock file is changed in a copy of the tree.
minimal_versions() {
    copy=$target/minimal-versions
    rm -rf "$copy/tree"
    mkdir -p "$copy/tree"
    git ls-files -co --exclude-standard | tar cf - -T - | tar xf - -C "$copy/tree"
    cd "$copy/tree"
    # The flag belongs to cargo's nightly version; the compiler below runs as a stable one.
    RUSTC_BOOTSTRAP=1 $cargo update -q -Z direct-minimal-versions
    CARGO_TARGET_DIR=$copy/target $cargo check -q --workspace --all-targets
}

# The oldest compiler that Cargo.toml names, if rustup has it. `make check` checks the rest of the
# promise: clippy's incompatible_msrv for the standard library, dependencies.py for the crates.
msrv() {
    version=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
    toolchain=$(toolchains | grep -m 1 "^${version}[.-]" || true)
    [ -n "$toolchain" ] || cannot "Rust $version is not installed: rustup toolchain install $version --profile minimal"
    CARGO_TARGET_DIR=$target/msrv rustup run "$toolchain" cargo check -q --locked --workspace --all-targets
}

# The pure crates under miri.
miri() {
    if $cargo miri --version >/dev/null 2>&1; then
        toolchain=
    elif toolchains | grep -q '^nightly' && $cargo +nightly miri --version >/dev/null 2>&1; then
        toolchain=+nightly
    else
        cannot "miri is not installed: rustup toolchain install nightly --component miri,rust-src"
    fi
    for crate in wire config; do
        [ -d "crates/$crate" ] || continue
        # shellcheck disable=SC2086  # no word, or one
        PROPTEST_CASES=${PROPTEST_CASES:-16} MIRIFLAGS=-Zmiri-disable-isolation CARGO_TARGET_DIR=$target/miri \
            $cargo $toolchain miri test -q -p "drover-$crate"
    done
}

asan() { make --no-print-directory asan; }

fuzz() { make --no-print-directory fuzz SECONDS="${FUZZ_SECONDS:-60}"; }

if [ $# = 1 ]; then
    case " $steps " in *" $1 "*) ;; *) echo "nightly: $1 is not one of: $steps" >&2; exit 2 ;; esac
    "$1"
    exit
fi

[ $# -gt 0 ] || { # shellcheck disable=SC2086  # a list of words
    set -- $steps; }
summary='' ok=0 failed=0 left_out=0
for step in "$@"; do
    echo "nightly: == $step"
    code=0
    sh "$0" "$step" </dev/null || code=$?
    case $code in
    0) result=ok ok=$((ok + 1)) ;;
    "$not_run") result="not run" left_out=$((left_out + 1)) ;;
    *) result=FAILED failed=$((failed + 1)) ;;
    esac
    summary="$summary$step: $result
"
done
printf '\n%s' "$summary"
echo "nightly: $ok ok, $failed failed, $left_out not run"
[ "$failed" = 0 ]

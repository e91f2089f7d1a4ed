#!/bin/sh
# Everything that must be true of the tree without running the product.
set -eu
repo=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
cd "$repo"
cargo=${CARGO:-cargo}
fail=0
say() { echo "check: $*"; }

say "format"
$cargo fmt --all --check
say "lints"
$cargo clippy --workspace --all-targets -- -D warnings
say "documentation"
RUSTDOCFLAGS='-D warnings' $cargo doc --workspace --no-deps --document-private-items -q

sources() { find src crates tests build.rs -name '*.rs' | LC_ALL=C sort; }

say "files with unsafe (scripts/unsafe-files.txt)"
found=$(sources | xargs grep -lE '(^|[^_[:alnum:]"])unsafe *(\{|fn|impl|extern|trait|\()' || true)
if [ "$found" != "$(cat scripts/unsafe-files.txt)" ]; then
    echo "$found" | diff scripts/unsafe-files.txt - || true
    say "unsafe has an address: put it into one of these files, or change the list on purpose"
    fail=1
fi

say "heads"
for file in $(sources); do
    case $(head -n 1 "$file") in '//!'*) ;; *) say "$file does not begin with what it is responsible for (//!)"; fail=1 ;; esac
done

say "shell scripts"
for file in scripts/*.sh; do sh -n "$file" || fail=1; done
bash -n .ci/run || fail=1

say "message codes (docs/messages.md)"
sh scripts/messages.sh | cmp -s - docs/messages.md || { say "docs/messages.md is stale: sh scripts/messages.sh >docs/messages.md"; fail=1; }

say "generated files and the tests that directives name"
$cargo test -q -p mod_drover --test generated || fail=1

[ "$fail" = 0 ] || { say "failed"; exit 1; }
say "ok"

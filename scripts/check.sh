#!/bin/sh
# check.sh: checks of the tree that do not run the product.
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
# Tracked files and new ones; in a tree without git, every file.
files() {
    git ls-files -co --exclude-standard 2>/dev/null || find . -name target -prune -o -type f -print
}
text() { files | while read -r file; do [ ! -f "$file" ] || [ -L "$file" ] || echo "$file"; done; }

say "files with unsafe (scripts/unsafe-files.txt)"
found=$(sources | xargs grep -lE '(^|[^_[:alnum:]"])unsafe *(\{|fn|impl|extern|trait|\()' || true)
if [ "$found" != "$(cat scripts/unsafe-files.txt)" ]; then
    echo "$found" | diff scripts/unsafe-files.txt - || true
    say "move the unsafe code into one of these files, or change the list on purpose"
    fail=1
fi

say "heads"
for file in $(sources); do
    case $(head -n 1 "$file") in '//!'*) ;; *) say "$file does not begin with its responsibility (//!)"; fail=1 ;; esac
done

say "shell scripts"
text | xargs grep -lE '^#!.*\b(ba)?sh$' | grep -v '\.rs$' | xargs shellcheck || fail=1

say "spelling"
text | xargs codespell || fail=1

say "white space (.editorconfig)"
text | xargs grep -nIE '[[:space:]]+$' | grep . && fail=1
text | while read -r file; do
    [ ! -s "$file" ] || [ "$(tail -c 1 "$file" | wc -l)" = 1 ] || echo "$file does not end with a newline"
done | grep . && fail=1

say "man pages"
mandoc -T lint -W warning man/* || fail=1

say "dependencies (ARCHITECTURE.md, rust-version, one version of each)"
python3 scripts/dependencies.py || fail=1

if $cargo deny --version >/dev/null 2>&1; then
    say "licences and sources of dependencies (deny.toml)"
    $cargo deny --offline check licenses bans sources || fail=1
else
    say "licences: not checked here, as cargo-deny is not installed; make nightly checks them"
fi

say "message codes (docs/messages.md)"
sh scripts/messages.sh | cmp -s - docs/messages.md || { say "docs/messages.md is stale: sh scripts/messages.sh >docs/messages.md"; fail=1; }

say "generated files"
$cargo test -q -p drover-config --test generated || fail=1

[ "$fail" = 0 ] || { say "failed"; exit 1; }
say "ok"

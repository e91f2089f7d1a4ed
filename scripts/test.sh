#!/bin/sh
# test.sh MPM NAME QUICK: runs cargo's tests, and ends with the line `N passed, N failed`.
#
# Without a choice all of them run. MPM and NAME choose among the tests with httpd: those of this
# MPM (or of none) with NAME in their names. QUICK=1 runs those of the event MPM, but for the slow
# ones in `slow`, and every test that needs no httpd.
set -eu
mpm=${1:-} name=${2:-} quick=${3:-}
cargo=${CARGO:-cargo}
case $mpm in '' | prefork | worker | event) ;; *) echo "test: MPM is prefork, worker or event" >&2; exit 2 ;; esac
# A test waits for processes more than it computes.
RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(($(nproc) + 1))}
export RUST_TEST_THREADS

output=$(mktemp)
trap 'rm -f "$output" "$output.code"' EXIT
trap 'exit 130' INT TERM

# Runs a command, shows its output and adds it to what is counted at the end.
counted() {
    { code=0; "$@" </dev/null 2>&1 || code=$?; echo "$code" >"$output.code"; } | tee -a "$output"
    [ "$(cat "$output.code")" = 0 ] || status=1
}

# The tests with httpd that are to run, by name.
httpd_tests() {
    others=$(for m in prefork worker event; do [ "$m" = "$mpm" ] || printf '%s|' "$m"; done)
    list=$("$cargo" test -q --test httpd -- --list --format terse "$name" </dev/null | sed -n 's/: test$//p')
    [ -z "$mpm" ] || list=$(echo "$list" | grep -vE "::(${others%|})\$" || true)
    [ -z "$quick" ] || list=$(echo "$list" | grep -vE "::theirs\$|$slow" || true)
    [ -n "$list" ] || { echo "test: no test has ${name:-any name} and ${mpm:-any MPM}" >&2; exit 2; }
}

# The test programs of the workspace but the one that starts httpd, as arguments of cargo test.
without_httpd() {
    "$cargo" metadata --format-version 1 --no-deps | python3 -c '
import json, sys
targets = [t for p in json.load(sys.stdin)["packages"] for t in p["targets"]]
print(*("--test=" + t["name"] for t in targets if "test" in t["kind"] and t["test"] and t["name"] != "httpd"))'
}

slow='^(soak|clients|large|real_apps|session_frameworks)::'
status=0
if [ -n "$quick" ]; then
    mpm=event
    httpd_tests
    # shellcheck disable=SC2046  # a list of words
    [ -n "$name" ] || counted "$cargo" test --workspace --no-fail-fast --lib --bins $(without_httpd)
    # shellcheck disable=SC2086  # a list of words
    counted "$cargo" test --test httpd --no-fail-fast -- --exact $list
elif [ -z "$mpm$name" ]; then
    counted "$cargo" test --workspace --no-fail-fast
else
    httpd_tests
    # shellcheck disable=SC2086  # a list of words
    counted "$cargo" test --test httpd --no-fail-fast -- --exact $list
fi

# The failed tests again (cargo test -q writes dashes), then the sum over all test programs.
grep -E '^(test )?[^ ]+ (\.\.\.|---) FAILED$' "$output" || true
awk '
    /^test result: / { for (i = 1; i < NF; i++) { if ($(i + 1) == "passed;") p += $i; if ($(i + 1) == "failed;") f += $i; if ($(i + 1) == "ignored;") s += $i }; n++ }
    END {
        if (!n || p + f == 0) { print "test: no test ran"; exit 1 }
        printf "%d passed, %d failed%s\n", p, f, s ? sprintf(", %d skipped", s) : ""
    }
' "$output" || status=1
exit "$status"

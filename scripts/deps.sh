#!/bin/sh
# deps.sh install WHAT: installs the packages and virtual environments that WHAT needs.
# deps.sh missing WHAT: installs nothing; names what is missing, with exit status 1.
#
# WHAT is build, check, test, fuzz, valgrind, bench, or all (everything but bench). Only `install`
# calls apt-get, with sudo when it does not run as root. It installs apache2-bin, which has httpd
# and its modules but no service: a system httpd that runs is left alone.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
mode=${1:?install or missing} what=${2:-all}
say() { echo "deps: $*" >&2; }

build="apache2-bin apache2-dev gcc libc6-dev make libclang-dev python3 ca-certificates"
check="git shellcheck codespell mandoc"
test="python3-venv python3-dev curl openssl procps slowhttptest redis-server memcached strace"
fuzz="g++"
valgrind="valgrind libc6-dbg"
for=
case $what in
build) need=$build ;;
check) need="$build $check" ;;
test) need="$build $test" ;;
fuzz) need="$build $fuzz" ;;
valgrind) need="$build $valgrind" ;;
bench)
    for=" FOR=bench"
    need="$build $test apache2 wrk uwsgi-core uwsgi-plugin-python3 libapache2-mod-proxy-uwsgi"
    ;;
all) need="$build $check $test $fuzz $valgrind" ;;
*) say "$what is not build, check, test, fuzz, valgrind, bench or all"; exit 2 ;;
esac

failed=0
if ! command -v cargo >/dev/null; then
    say "Rust is missing: install it from https://rustup.rs"
    exit 1
fi
if [ "$what" = check ] || [ "$what" = all ]; then
    for part in clippy fmt; do
        cargo $part --version >/dev/null 2>&1 || { say "cargo $part is missing: rustup component add clippy rustfmt"; failed=1; }
    done
fi

# What other distributions must have; their packages have other names.
programs="apxs gcc python3"
case $what in check | all) programs="$programs shellcheck codespell mandoc" ;; esac

if command -v dpkg-query >/dev/null; then
    # shellcheck disable=SC2086  # a list of words
    installed=$(dpkg-query -W -f='${Package} ${Status}\n' $need 2>/dev/null | sed -n 's/ install ok installed$//p')
    missing=
    for package in $need; do
        echo "$installed" | grep -qxF "$package" || missing="$missing $package"
    done
    if [ -n "$missing" ] && [ "$mode" = missing ]; then
        say "missing:$missing"
        say "\`make deps$for\` installs them, or: apt-get install$missing"
        failed=1
    elif [ -n "$missing" ]; then
        say "installing:$missing"
        as_root=
        [ "$(id -u)" = 0 ] || as_root=sudo
        $as_root apt-get update -q >&2 </dev/null
        # shellcheck disable=SC2086  # a list of words
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing >&2 </dev/null
    fi
else
    for program in $programs; do
        command -v "$program" >/dev/null && continue
        say "$program is missing. This is not Debian: install httpd with its headers (apxs), gcc, libclang and Python 3.9 or newer yourself"
        failed=1
    done
fi

case $what in test | bench | all) ;; *) exit "$failed" ;; esac

shared=$(sh "$here/shared-dir.sh")

# Whether a virtual environment was made from these pins.
is_current() { [ "$(cat "$1/.stamp" 2>/dev/null || true)" = "$(cksum <"$2")" ]; }

if [ "$mode" = missing ]; then
    for name in theirs:theirs apps:venvs/apps clients:venvs/clients; do
        is_current "$shared/${name#*:}" "$here/../tests/requirements-${name%%:*}.txt" ||
            { say "missing: the virtual environment $shared/${name#*:}: make deps"; failed=1; }
    done
    exit "$failed"
fi
[ "$failed" = 0 ] || exit 1

mkdir -p "$shared"
[ "$(stat -c %u "$shared")" = "$(id -u)" ] || { say "$shared belongs to another user: set DROVER_SHARED to a directory of your own"; exit 1; }
chmod go-w "$shared"

# A virtual environment of Debian's Python with pinned packages; made again when the pins change.
venv() {
    dir=$1 pins=$2
    if is_current "$dir" "$pins"; then return 0; fi
    say "making $dir"
    rm -rf "$dir"
    /usr/bin/python3 -m venv "$dir"
    "$dir/bin/pip" install -q --disable-pip-version-check -r "$pins" >&2 </dev/null
    cksum <"$pins" >"$dir/.stamp"
}
umask 022
venv "$shared/theirs" "$here/../tests/requirements-theirs.txt"
venv "$shared/venvs/apps" "$here/../tests/requirements-apps.txt"
venv "$shared/venvs/clients" "$here/../tests/requirements-clients.txt"
# The test suite of requests is only in its source distribution.
if [ ! -f "$shared/clients/requests.tar.gz" ]; then
    rm -rf "$shared/clients" && mkdir -p "$shared/clients"
    version=$(sed -n 's/^requests==//p' "$here/../tests/requirements-clients.txt")
    "$shared/venvs/clients/bin/pip" download -q --disable-pip-version-check --no-deps --no-binary :all: --no-build-isolation \
        -d "$shared/clients" "requests==$version" >&2 </dev/null
    mv "$shared"/clients/requests-*.tar.gz "$shared/clients/requests.tar.gz"
fi
# So are Django's tests of session engines. Its build needs a setuptools of its own, which pip fetches.
version=$(sed -n 's/^Django==//p' "$here/../tests/requirements-apps.txt")
if [ ! -f "$shared/sources/django-$version.tar.gz" ]; then
    rm -rf "$shared/sources" && mkdir -p "$shared/sources"
    "$shared/venvs/apps/bin/pip" download -q --disable-pip-version-check --no-deps --no-binary Django -d "$shared/sources" "Django==$version" >&2 </dev/null
fi
sh "$here/pythons.sh" "$shared/pythons"

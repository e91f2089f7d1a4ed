#!/bin/sh
# Installs what is missing: `provision.sh build` for building and running, `provision.sh tests` for the tests too, `provision.sh fuzz` and
# `provision.sh valgrind` for the targets of these names.
#
# It installs apache2-bin, which has httpd and its modules but no service: so nothing is started, and a system httpd that runs is left alone.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
what=${1:-build}
say() { echo "provision: $*" >&2; }

command -v cargo >/dev/null || { say "Rust is missing: install it from https://rustup.rs"; exit 1; }

need="apache2-bin apache2-dev gcc libc6-dev make libclang-dev python3 python3-venv ca-certificates"
case $what in
tests) need="$need python3-dev curl openssl procps slowhttptest redis-server memcached strace" ;;
fuzz) need="$need g++" ;;
valgrind) need="$need valgrind libc6-dbg" ;;
esac

if command -v dpkg-query >/dev/null; then
    missing=
    for package in $need; do
        case $(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || true) in
        'install ok installed') ;;
        *) missing="$missing $package" ;;
        esac
    done
    if [ -n "$missing" ]; then
        say "installing:$missing"
        as_root=
        [ "$(id -u)" = 0 ] || as_root=sudo
        export DEBIAN_FRONTEND=noninteractive
        $as_root apt-get update -q >&2 </dev/null
        # shellcheck disable=SC2086
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing >&2 </dev/null
    fi
else
    for program in apxs gcc python3; do
        command -v "$program" >/dev/null || {
            say "$program is missing. This is not Debian: install httpd with its headers (apxs), gcc, libclang and Python 3.9 or newer yourself."
            exit 1
        }
    done
fi

[ "$what" = tests ] || exit 0

shared=$(sh "$here/shared-dir.sh")
mkdir -p "$shared"
[ "$(stat -c %u "$shared")" = "$(id -u)" ] || { say "$shared belongs to somebody else: set DROVER_SHARED to a directory of your own"; exit 1; }
chmod go-w "$shared"

# A virtualenv of Debian's Python with pinned packages; made anew when the pins change.
venv() {
    dir=$1 pins=$2
    stamp=$(cksum <"$pins")
    [ "$(cat "$dir/.stamp" 2>/dev/null || true)" != "$stamp" ] || return 0
    say "making $dir"
    rm -rf "$dir"
    /usr/bin/python3 -m venv "$dir"
    "$dir/bin/pip" install -q --disable-pip-version-check -r "$pins" >&2 </dev/null
    echo "$stamp" >"$dir/.stamp"
}
umask 022
venv "$shared/theirs" "$here/../tests/requirements-theirs.txt"
venv "$shared/venvs/apps" "$here/../tests/requirements-apps.txt"
venv "$shared/venvs/clients" "$here/../tests/requirements-clients.txt"
# The test-suite of requests is in its sources only.
if [ ! -f "$shared/clients/requests.tar.gz" ]; then
    rm -rf "$shared/clients" && mkdir -p "$shared/clients"
    version=$(sed -n 's/^requests==//p' "$here/../tests/requirements-clients.txt")
    "$shared/venvs/clients/bin/pip" download -q --disable-pip-version-check --no-deps --no-binary :all: --no-build-isolation \
        -d "$shared/clients" "requests==$version" >&2 </dev/null
    mv "$shared"/clients/requests-*.tar.gz "$shared/clients/requests.tar.gz"
fi
# So are Django's tests of session engines. Its build wants a setuptools of its own, which pip fetches for it.
version=$(sed -n 's/^Django==//p' "$here/../tests/requirements-apps.txt")
if [ ! -f "$shared/sources/django-$version.tar.gz" ]; then
    rm -rf "$shared/sources" && mkdir -p "$shared/sources"
    "$shared/venvs/apps/bin/pip" download -q --disable-pip-version-check --no-deps --no-binary Django -d "$shared/sources" "Django==$version" >&2 </dev/null
fi
sh "$here/pythons.sh" "$shared/pythons"

#!/bin/sh
# pythons.sh DIRECTORY: writes DIRECTORY/list, every CPython >= 3.9 of this machine that any user can
# run, one path a line: those of the system in place, those of a private pyenv as copies below
# DIRECTORY. Called by deps.sh.
set -eu
directory=$1
mkdir -p "$directory"
list=$directory/list
: >"$list.new"

usable() { "$1" -c 'import sys, venv; sys.exit(sys.version_info < (3, 9) or sys.implementation.name != "cpython")' >/dev/null 2>&1 </dev/null; }

# Whether every user may enter all directories above a file.
open_to_all() {
    path=$(readlink -f "$1")
    while [ "$path" != / ]; do
        case $(stat -c %A "$path") in *x | *t) ;; *) return 1 ;; esac
        path=$(dirname "$path")
    done
}

for python in /usr/bin/python3 /usr/bin/python3.? /usr/bin/python3.?? /usr/local/bin/python3.? /usr/local/bin/python3.??; do
    if ! [ -x "$python" ] || ! usable "$python" || ! open_to_all "$python"; then continue; fi
    grep -qx "$(readlink -f "$python")" "$list.new" || readlink -f "$python" >>"$list.new"
done
for home in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*; do
    if [ -L "$home" ] || ! [ -x "$home/bin/python3" ] || ! usable "$home/bin/python3"; then continue; fi
    [ ! -f "$home/pyvenv.cfg" ] || continue
    if ! open_to_all "$home/bin/python3"; then
        copy=$directory/$(basename "$home")
        if [ ! -x "$copy/bin/python3" ]; then
            echo "deps: copying $home" >&2
            rm -rf "$copy.new"
            mkdir -p "$copy.new"
            (cd "$home" && tar cf - --exclude=test --exclude=tests --exclude='*.a' --exclude=site-packages --exclude=idlelib --exclude=share .) | (cd "$copy.new" && tar xf -)
            for lib in "$home"/lib/python3.*; do mkdir -p "$copy.new/lib/${lib##*/}/site-packages"; done
            chmod -R go+rX "$copy.new"
            mv "$copy.new" "$copy"
        fi
        home=$copy
    fi
    usable "$home/bin/python3" && readlink -f "$home/bin/python3" >>"$list.new"
done
sort -u "$list.new" >"$list"
rm -f "$list.new"

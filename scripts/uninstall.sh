#!/bin/sh
# uninstall.sh PREFIX DESTDIR: removes what install.sh wrote, and nothing else; says what it removed and what stays.
set -eu
prefix=$1 destdir=$2
case $prefix in /*) ;; *) prefix=$PWD/$prefix ;; esac
etc=$destdir/etc/apache2
if [ -e "$etc/mods-enabled/drover.load" ] && [ "$prefix" != "${prefix#/usr}" ]; then
    echo "uninstall: the module is enabled: run a2dismod drover first" >&2
    exit 1
fi
found=
remove() { # PATH
    if [ -e "$1" ] || [ -L "$1" ]; then
        rm -rf "$1"
        found=yes
        echo "uninstall: removed $1"
    fi
}
load=$etc/mods-available/drover.load
if [ -f "$load" ] && grep -q " $prefix/lib/mod_drover/mod_drover.so\$" "$load"; then
    remove "$load"
    remove "$etc/mods-available/drover.conf"
fi
remove "$destdir$prefix/lib/mod_drover"
remove "$destdir$prefix/bin/drover"
remove "$destdir$prefix/share/man/man1/drover.1"
remove "$destdir$prefix/share/man/man8/droverd.8"
[ -n "$found" ] || echo "uninstall: nothing of mod_drover is installed below $destdir$prefix"

# Files that the server and the administrator wrote.
stays() { # PATH WHAT
    [ ! -e "$1" ] || echo "uninstall: $1 stays: $2"
}
for file in "$etc"/mods-available/drover.* "$etc"/mods-enabled/drover.*; do
    stays "$file" "it was not written by this installation"
done
stays "$destdir/var/lib/mod_drover/sessions" "it holds the sessions of applications; remove it when nobody needs them"
echo "uninstall: httpd's configuration and error logs stay as they are"

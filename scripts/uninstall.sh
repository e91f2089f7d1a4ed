#!/bin/sh
# uninstall.sh PREFIX DESTDIR: removes what install.sh wrote, and nothing else.
set -eu
prefix=$1 destdir=$2
case $prefix in /*) ;; *) prefix=$PWD/$prefix ;; esac
if [ -e "$destdir/etc/apache2/mods-enabled/drover.load" ] && [ "$prefix" != "${prefix#/usr}" ]; then
    echo "uninstall: the module is enabled: run a2dismod drover first" >&2
    exit 1
fi
rm -rf "$destdir$prefix/lib/mod_drover"
rm -f "$destdir$prefix/bin/drover" "$destdir$prefix/share/man/man1/drover.1" "$destdir$prefix/share/man/man8/droverd.8"
load=$destdir/etc/apache2/mods-available/drover.load
if [ -f "$load" ] && grep -q " $prefix/lib/mod_drover/mod_drover.so\$" "$load"; then
    rm -f "$load" "$destdir/etc/apache2/mods-available/drover.conf"
fi
echo "uninstall: removed $destdir$prefix/lib/mod_drover and $destdir$prefix/bin/drover"

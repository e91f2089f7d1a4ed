#!/bin/sh
# install.sh BUILT PREFIX DESTDIR: installs below DESTDIR/PREFIX. Every file is a new inode, so a running
# httpd keeps the old ones.
set -eu
built=$1 prefix=$2 destdir=$3
repo=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
case $prefix in /*) ;; *) prefix=$PWD/$prefix ;; esac
lib=$destdir$prefix/lib/mod_drover
umask 022

for file in libmod_drover.so droverd lib_drover.so drover; do
    [ -f "$built/$file" ] || { echo "install: $built/$file is missing: run make build first" >&2; exit 1; }
done

[ -f "$repo/python/mod_drover/boot.py" ] || { echo "install: python/mod_drover/boot.py is missing from this tree" >&2; exit 1; }

# Writes beside the target and renames, so that no process sees half a file.
put() { # MODE FROM TO
    install -m "$1" "$2" "$3.new"
    mv -f "$3.new" "$3"
}
install -d -m 755 "$lib" "$destdir$prefix/bin"
put 755 "$built/libmod_drover.so" "$lib/mod_drover.so"
put 755 "$built/droverd" "$lib/droverd"
put 755 "$built/lib_drover.so" "$lib/_drover.abi3.so"
put 755 "$built/drover" "$destdir$prefix/bin/drover"
for page in drover.1 droverd.8; do
    section=$destdir$prefix/share/man/man${page##*.}
    install -d -m 755 "$section"
    put 644 "$repo/man/$page" "$section/$page"
done

# The Python packages: a new directory replaces the old one, so that no file of an older version stays.
rm -rf "$lib/python.new"
for package in mod_drover mod_wsgi; do
    [ -d "$repo/python/$package" ] || continue
    (cd "$repo/python" && find "$package" -type f ! -name '*.pyc') | while read -r file; do
        install -D -m 644 "$repo/python/$file" "$lib/python.new/$file"
    done
done
install -d -m 755 "$lib/python.new"
rm -rf "$lib/python.old"
[ ! -d "$lib/python" ] || mv "$lib/python" "$lib/python.old"
mv "$lib/python.new" "$lib/python"
rm -rf "$lib/python.old"

# Debian: what `a2enmod drover` needs.
available=$destdir/etc/apache2/mods-available
case $prefix in
/usr | /usr/local)
    if [ -d "$available" ] || { [ -n "$destdir" ] && [ -f /etc/debian_version ]; }; then
        install -d -m 755 "$available"
        printf '%s\n' "# Conflicts: wsgi" "# mod_drover replaces mod_wsgi: a2dismod wsgi; a2enmod drover" \
            "LoadModule wsgi_module $prefix/lib/mod_drover/mod_drover.so" >"$available/drover.load.new"
        mv -f "$available/drover.load.new" "$available/drover.load"
        if [ -f "$repo/apache-conf/drover.conf" ]; then put 644 "$repo/apache-conf/drover.conf" "$available/drover.conf"; fi
        echo "install: wrote $available/drover.load; enable it with: a2dismod wsgi; a2enmod drover; systemctl restart apache2"
    fi
    ;;
esac
echo "install: $destdir$prefix/lib/mod_drover and $destdir$prefix/bin/drover"

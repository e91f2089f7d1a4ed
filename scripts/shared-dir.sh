#!/bin/sh
# Prints the directory for what the workers' user must be able to read: the staged installation and the
# virtual environments. It is ./target when every user may enter the tree, and a directory below
# /var/tmp when the tree is in a private home.
set -eu
if [ -n "${DROVER_SHARED:-}" ]; then echo "$DROVER_SHARED"; exit 0; fi
repo=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
dir=$repo
while [ "$dir" != / ]; do
    case $(stat -c %A "$dir") in
    *x | *t) dir=$(dirname "$dir") ;;
    *) echo "/var/tmp/mod_drover-$(id -u)-$(echo "$repo" | cksum | cut -d' ' -f1)"; exit 0 ;;
    esac
done
echo "$repo/target"

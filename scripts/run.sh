#!/bin/sh
# run.sh STAGE APP PORT: serves the application in the foreground. If root runs it in a tree that other
# users cannot enter, a copy of the application below STAGE is served, which the workers can read.
set -eu
stage=$1 app=$2 port=$3
repo=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
case $stage in
"$repo"/*) ;;
*)
    if [ "$(id -u)" = 0 ] && [ -f "$repo/$app" ]; then
        install -D -m 644 "$repo/$app" "$stage/share/$(basename "$app")"
        app=$stage/share/$(basename "$app")
    fi
    ;;
esac
exec "$stage/bin/drover" serve "$app" --port "$port"

#!/bin/sh
# run.sh STAGE APP PORT: serves the application in the foreground. When this tree lies in a private home and we are root, the workers' user could
# not read the application here: then a copy beside the staged installation is served.
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

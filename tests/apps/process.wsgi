"""Tells about its own process: user, directory, interpreter, environment."""
import json
import locale
import os
import sys
import threading

COUNT = 0
LOCK = threading.Lock()


def application(environ, start_response):
    global COUNT
    with LOCK:
        COUNT += 1
    umask = os.umask(0o77)
    os.umask(umask)
    with open("/proc/self/cmdline", "rb") as f:
        cmdline = f.read().replace(b"\0", b" ").decode("latin-1")
    answer = {
        "pid": os.getpid(),
        "count": COUNT,
        "uid": os.getuid(),
        "gid": os.getgid(),
        "groups": sorted(os.getgroups()),
        "cwd": os.getcwd(),
        "umask": umask,
        "nice": os.nice(0),
        "path": sys.path,
        "prefix": sys.prefix,
        "executable": sys.executable,
        "version": list(sys.version_info[:2]),
        "argv": sys.argv,
        "cmdline": cmdline,
        "environ": dict(os.environ),
        "locale": locale.setlocale(locale.LC_ALL),
        "group": environ.get("mod_wsgi.process_group"),
        "application": environ.get("mod_wsgi.application_group"),
        "multiprocess": environ["wsgi.multiprocess"],
        "multithread": environ["wsgi.multithread"],
        "modules": sorted(m for m in sys.modules if m.startswith("marker")),
        "file": __file__,
        "name": __name__,
    }
    body = json.dumps(answer).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]

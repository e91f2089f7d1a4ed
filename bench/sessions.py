#!/usr/bin/env python3
"""sessions.py [--ours] [--million]: what a session costs, as CPU per request added to the same request without one, in one interleaved run.

Ours in memory (one child), on disk, and on disk among a million sessions; beside it Django with our engine and, under mod_wsgi, with its own
file, db (SQLite) and signed-cookie engines (not with --ours). Needs what `bench/run` needs."""
import os
import statistics
import sys
import tempfile
import urllib.request

import peers
from peers import LAB, MODWSGI, VENV, Server, wrk

PATHS = ["/hello", "/read", "/write"]
CLIENTS = 500
ONE_CHILD = "ServerLimit 1\nThreadsPerChild 25\nMaxRequestWorkers 25\nStartServers 1\n"


class Case(Server):
    def __init__(self, name, script, drover, engine="", extra=""):
        self.script, self.drover, self.engine, self.more = script, drover, engine, extra
        super().__init__("case", "event", 2, 4)
        self.name = name

    def conf_case(self):
        script = LAB / "apps" / (self.script + ".wsgi")
        group = f"WSGIDaemonProcess app processes=2 threads=4 python-home={VENV}\nWSGIProcessGroup app\nWSGIApplicationGroup %{{GLOBAL}}\nWSGIScriptAlias / {script}\n"
        if not self.drover:
            return f"LoadModule wsgi_module {MODWSGI}\nWSGISocketPrefix {self.root}/wsgi\n" + group
        module = os.environ["DROVER_PREFIX"] + "/lib/mod_drover/mod_drover.so"
        own = f"DroverSession {self.engine}\nDroverSessionDirectory {self.root}/sessions\nDroverSessionDiskSize 4G\n"
        return f"LoadModule wsgi_module {module}\n" + own + group + self.more

    def ask(self, path):
        try:
            with urllib.request.urlopen("http://127.0.0.1:%d%s" % (self.port, path), timeout=600) as answer:
                return answer.headers.get("Set-Cookie", "").split(";")[0]
        except OSError as error:
            raise SystemExit(f"{self.name}: {path}: {error}: {open(self.root + '/error.log').read()[-3000:]}")

    def prepare(self):
        """Clients with a session each; a script for wrk that takes their cookies in turn."""
        cookies = [self.ask("/new") for _ in range(CLIENTS)]
        assert all(cookies), self.name
        self.lua = tempfile.mktemp(suffix=".lua")
        with open(self.lua, "w") as out:
            out.write("local cookies = {%s}\nlocal n = 0\n" % ",".join('"%s"' % c for c in cookies))
            out.write('request = function()\n  n = n %% #cookies + 1\n  return wrk.format(nil, nil, {Cookie = cookies[n]})\nend\n'.replace("%%", "%"))

    def measure(self, path, secs):
        before = self.cpu()
        done = wrk("http://127.0.0.1:%d%s" % (self.port, path), 16, secs, self.lua)
        after = self.cpu()
        assert not done["bad"], (self.name, path, done)
        return sum(after[p] - before.get(p, 0) for p in after) / max(done["n"], 1) * 1e6


def main():
    rounds, secs = 9, 2
    cases = [
        Case("ours, memory", "session_drover", True, "memory", ONE_CHILD),
        Case("ours, disk", "session_drover", True, "disk"),
        Case("Django, ours, disk", "session_django_drover", True, "disk"),
        Case("Django, file", "session_django_file", False),
        Case("Django, db", "session_django_db", False),
        Case("Django, signed", "session_django_signed_cookies", False),
    ]
    if "--ours" in sys.argv:
        cases = [case for case in cases if case.name.startswith("ours")]
    if "--million" in sys.argv:
        cases.insert(2, Case("ours, disk, 1 M", "session_drover", True, "disk"))
    found = {c.name: {p: [] for p in PATHS} for c in cases}
    for case in cases:
        case.start()
    try:
        for case in cases:
            case.prepare()
            if case.name.endswith("1 M"):
                for _ in range(100):
                    case.ask("/fill?10000")
            for path in PATHS:
                case.measure(path, 1)
        for _ in range(rounds):
            for case in cases:
                for path in PATHS:
                    found[case.name][path].append(case.measure(path, secs))
    finally:
        for case in cases:
            case.stop()
    print(f"{'CPU per request, us':22}{'without':>10}{'read adds':>12}{'write adds':>12}")
    for name, figures in found.items():
        added = [statistics.median(w - h for h, w in zip(figures["/hello"], figures[path])) for path in PATHS[1:]]
        print(f"{name:22}{statistics.median(figures['/hello']):10.1f}{added[0]:12.1f}{added[1]:12.1f}")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""overload.py [SECONDS]: what an application still does for its clients when ten times as many come as it can serve.

The application answers after 20 ms, four at a time: 200 a second. Measured: the answers a second at full load, then under ten times as many
requests for SECONDS (60), with the refusals, the time until one more request is served promptly when that is over, and the memory before and
at the worst moment. mod_wsgi's daemon mode beside it, with queue-timeout as its documentation advises. Needs what `bench/run` needs."""
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

from peers import APP, MODWSGI, VENV, Server

SERVICE, SLOTS = 0.02, 4
CAPACITY = SLOTS / SERVICE
TIMES = 10
MORE = "ServerLimit 16\nThreadsPerChild 64\nMaxRequestWorkers 1024\nStartServers 8\n"


class Case(Server):
    def __init__(self, name, module, options):
        self.module, self.options = module, options
        super().__init__("case", "event", 2, 2)
        self.name = name

    def conf_case(self):
        return (f"LoadModule wsgi_module {self.module}\n"
                f"WSGIDaemonProcess app processes=2 threads=2 python-home={VENV} {self.options}\n"
                f"WSGIProcessGroup app\nWSGIApplicationGroup %{{GLOBAL}}\nWSGIScriptAlias / {APP}\n"
                + ("" if "drover" in self.module else f"WSGISocketPrefix {self.root}/wsgi\n") + MORE)

    @property
    def url(self):
        return "http://127.0.0.1:%d/sleep/%s" % (self.port, SERVICE)


def load(url, clients, seconds, pause_ms):
    """Each client asks again `pause_ms` after its last answer. Good answers a second, refusals a second, socket errors."""
    script = tempfile.mktemp(suffix=".lua")
    with open(script, "w") as out:
        out.write("function delay() return math.random(0, %d) end\n" % (2 * pause_ms) if pause_ms else "")
    said = subprocess.run(["wrk", "-t1", "-c%d" % clients, "-d%ds" % seconds, "--timeout", "60s", "-s", script, url], capture_output=True, text=True).stdout
    os.unlink(script)
    number = lambda pattern: int((re.search(pattern, said) or [0, 0])[1])
    bad, errors = number(r"Non-2xx or 3xx responses: (\d+)"), re.search(r"Socket errors: (.*)", said)
    return (number(r"(\d+) requests in") - bad) / seconds, bad / seconds, errors[1] if errors else "none"


def recovery(url):
    """Seconds until a request is served as promptly as on an idle server."""
    start = time.monotonic()
    while True:
        asked = time.monotonic()
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                answer.read()
            if time.monotonic() - asked < 4 * SERVICE:
                return asked - start
        except urllib.error.HTTPError:
            pass


def watch(server, over, worst):
    while not over.wait(1):
        worst.append(server.pss())


def main():
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    ours = os.environ["DROVER_PREFIX"] + "/lib/mod_drover/mod_drover.so"
    print(f"{'':24}{'full load/s':>12}{'overload/s':>12}{'goodput':>9}{'refused/s':>11}{'recovery s':>12}{'PSS MiB':>9}{'worst':>7}  socket errors")
    failed = False
    for name, module, options in [
        ("ours, queue-depth=20", ours, "queue-depth=20"),
        ("ours, queue-timeout=1", ours, "queue-timeout=1"),
        ("mod_wsgi, queue-timeout=1", str(MODWSGI), "queue-timeout=1"),
    ]:
        case = Case(name, module, options)
        case.start()
        try:
            load(case.url, SLOTS, 2, 0)
            best = load(case.url, 2 * SLOTS, max(5, seconds // 6), 0)[0]
            before, worst, over = case.pss(), [], threading.Event()
            watcher = threading.Thread(target=watch, args=(case, over, worst))
            watcher.start()
            good, refused, errors = load(case.url, 800, seconds, round(800 / (TIMES * CAPACITY) * 1000))
            again = recovery(case.url)
            over.set()
            watcher.join()
        finally:
            case.stop()
        share = good / best
        print(f"{name:24}{best:12.1f}{good:12.1f}{share:9.1%}{refused:11.1f}{again:12.2f}{before:9.1f}{max(worst):7.1f}  {errors}", flush=True)
        failed |= module == ours and (share < 0.95 or again > 1)
    if failed:
        raise SystemExit("FALLS SHORT: goodput below 95 %, or no recovery within a second")


if __name__ == "__main__":
    main()

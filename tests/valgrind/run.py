"""The module inside one httpd process (apache2 -X) under valgrind, and a fixed series of requests.

Responsible for: the series, and the verdict: no invalid access anywhere that tests/valgrind/httpd.supp does not explain, no memory definitely lost that
mod_drover.so had a part in. Must never: listen on anything but 127.0.0.1, end a process it did not start. Called by: scripts/valgrind.sh.
"""
import http.client
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as xml

HERE = pathlib.Path(__file__).resolve().parent
PATIENCE = 120
BLOCK = b"0123456789abcdef" * 1024

APPLICATION = '''
import hashlib
def application(environ, start_response):
    path, body = environ["PATH_INFO"], environ["wsgi.input"]
    if path == "/error":
        raise ValueError("thrown on purpose")
    if path == "/stream" or path == "/endless":
        start_response("200 OK", [("Content-Type", "text/plain")])
        blocks = range(100) if path == "/stream" else iter(int, 1)
        return (b"0123456789abcdef" * 1024 for _ in blocks)
    if path == "/unread":
        start_response("200 OK", [])
        return [b"not read"]
    data = hashlib.sha256()
    size = 0
    for block in iter(lambda: body.read(65536), b""):
        data.update(block)
        size += len(block)
    start_response("200 OK", [("X-Size", str(size)), ("X-Many", "1"), ("X-Many", "2")])
    return [data.hexdigest().encode()]
'''

CONFIG = '''
ServerRoot {dir}
DefaultRuntimeDir {dir}
PidFile {dir}/httpd.pid
ErrorLog {dir}/error.log
LogLevel info
ServerName localhost
Listen 127.0.0.1:{port}
{user}
LoadModule mpm_{mpm}_module {modules}/mod_mpm_{mpm}.so
LoadModule authz_core_module {modules}/mod_authz_core.so
<IfModule !unixd_module>
LoadModule unixd_module {modules}/mod_unixd.so
</IfModule>
LoadModule env_module {modules}/mod_env.so
LoadModule wsgi_module {prefix}/lib/mod_drover/mod_drover.so
WSGIChunkedRequest On
WSGITrustedProxyHeaders X-Forwarded-For X-Forwarded-Proto
WSGITrustedProxies 127.0.0.0/8
SetEnv name value
WSGIDaemonProcess app processes=1 threads=2
WSGIProcessGroup app
WSGIApplicationGroup %{{GLOBAL}}
WSGIScriptAliasMatch ^/match(/.*)?$ {dir}/app.wsgi$1
WSGIScriptAlias / {dir}/app.wsgi
'''


def ask(port, method, path, body=None, headers=None, chunked=False):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request(method, path, body, headers or {}, encode_chunked=chunked)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, data


def gone(port):
    """A client that resets its connection in the middle of an answer, and one in the middle of its upload."""
    for bytes_ in (b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n" + BLOCK * 8):
        client = socket.create_connection(("127.0.0.1", port), PATIENCE)
        client.sendall(bytes_)
        if bytes_.startswith(b"GET"):
            client.recv(65536)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()


def series(port):
    proxied = {"X-Forwarded-For": "1.2.3.4, 127.0.0.1", "X-Forwarded-Proto": "https"}
    for path in ("/", "/match/x?query=1"):
        status, data = ask(port, "GET", path, headers=proxied)
        assert (status, len(data)) == (200, 64), (path, status, data)
    assert ask(port, "HEAD", "/")[0] == 200
    assert ask(port, "POST", "/", b"small")[0] == 200
    assert ask(port, "POST", "/", BLOCK * 192)[0] == 200, "upload of 3 MiB"
    blocks = (BLOCK for _ in range(192))
    assert ask(port, "POST", "/", blocks, {"Transfer-Encoding": "chunked"}, True)[0] == 200, "chunked upload of 3 MiB"
    assert ask(port, "POST", "/unread", BLOCK * 192) == (200, b"not read")
    assert ask(port, "GET", "/stream") == (200, BLOCK * 100)
    assert ask(port, "GET", "/error")[0] == 500
    gone(port)
    assert ask(port, "GET", "/")[0] == 200, "after clients that went away"


def rest(pid):
    """Waits until httpd's threads sleep. mod_mpm_event's own cleanups read what is freed when SIGTERM comes as a thread is just done with a connection."""
    deadline = time.monotonic() + PATIENCE
    sleeping = lambda task: (task / "stat").read_text().rpartition(")")[2].split()[0] == "S"
    while time.monotonic() < deadline and not all(map(sleeping, pathlib.Path(f"/proc/{pid}/task").iterdir())):
        time.sleep(0.01)


def verdict(report):
    """The faults in valgrind's report, as text."""
    faults = []
    root = xml.parse(report).getroot()
    assert any(s.findtext("state") == "FINISHED" for s in root.iter("status")), "valgrind's report is not complete"
    for error in root.iter("error"):
        kind = error.findtext("kind")
        frames = [(f.findtext("obj", "?"), f.findtext("fn", "?"), f.findtext("file", "?"), f.findtext("line", "?")) for f in error.iter("frame")]
        ours = any("mod_drover" in frame[0] for frame in frames)
        if kind.startswith("Leak_") and not (kind == "Leak_DefinitelyLost" and ours):
            continue
        what = error.findtext("what") or error.findtext("xwhat/text")
        faults.append("\n".join([f"{kind}: {what}"] + [f"    {fn} ({file}:{line}) in {obj}" for obj, fn, file, line in frames]))
    return faults


def run(mpm, prefix, modules):
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="drover-valgrind-", dir="/tmp"))
    scratch.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    user = "User www-data\nGroup www-data" if os.geteuid() == 0 else ""
    (scratch / "httpd.conf").write_text(CONFIG.format(dir=scratch, port=port, user=user, mpm=mpm, modules=modules, prefix=prefix))
    (scratch / "app.wsgi").write_text(APPLICATION)
    report = scratch / "report.xml"
    command = ["valgrind", "--tool=memcheck", "--leak-check=full", "--show-leak-kinds=definite", "--errors-for-leak-kinds=definite", "--num-callers=40",
               f"--suppressions={HERE / 'httpd.supp'}", "--xml=yes", f"--xml-file={report}", "--child-silent-after-fork=yes", "--fair-sched=yes", "--vgdb=no",
               "/usr/sbin/apache2", "-X", "-f", str(scratch / "httpd.conf")]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C"}
    httpd = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + PATIENCE
        while httpd.poll() is None and time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        assert httpd.poll() is None, "httpd did not start"
        series(port)
        rest(httpd.pid)
        httpd.send_signal(signal.SIGTERM)
        httpd.wait(PATIENCE)
        faults = verdict(report)
    except BaseException:
        print((scratch / "error.log").read_text() if (scratch / "error.log").exists() else "no log", file=sys.stderr)
        raise
    finally:
        if httpd.poll() is None:
            httpd.kill()
            httpd.wait()
        if not os.environ.get("DROVER_KEEP"):
            shutil.rmtree(scratch)
    return faults


def main():
    prefix, modules = sys.argv[1:3]
    failed = False
    for mpm in sys.argv[3:] or ["event"]:
        faults = run(mpm, prefix, modules)
        for fault in faults:
            print(f"valgrind: {mpm}: {fault}")
        print(f"valgrind: {mpm}: {len(faults)} faults")
        failed |= bool(faults)
    sys.exit(failed)


main()

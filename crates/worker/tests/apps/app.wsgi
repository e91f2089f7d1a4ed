"""One behaviour for each path."""
import io
import os
import sys
import threading
from urllib.parse import parse_qs
from wsgiref.validate import validator

TEXT = [("Content-Type", "text/plain")]
closed = []
gates = {}


def gate(name):
    return gates.setdefault(name, threading.Event())


class Blocks:
    """An iterable with a close() that counts."""

    def __init__(self, name, blocks, fail_at=None, fail_close=False):
        self.name, self.blocks, self.fail_at, self.fail_close, self.at = name, blocks, fail_at, fail_close, 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.at == self.fail_at:
            raise RuntimeError("midway")
        if self.at == len(self.blocks):
            raise StopIteration
        self.at += 1
        return self.blocks[self.at - 1]

    def close(self):
        closed.append(self.name)
        gate("closed-" + self.name).set()
        if self.fail_close:
            raise RuntimeError("in close")


def hello(environ, start_response):
    start_response("200 OK", TEXT)
    return [b"hello"]


def report(environ, start_response):
    value = environ.get(parse_qs(environ["QUERY_STRING"])["key"][0], "MISSING")
    start_response("200 OK", TEXT)
    return [("%s %r" % (type(value).__name__, value)).encode("utf-8", "backslashreplace")]


def types(environ, start_response):
    names = ["wsgi.input", "wsgi.errors", "wsgi.file_wrapper"]
    values = [environ[n] for n in names]
    kinds = [v if isinstance(v, type) else type(v) for v in values]
    start_response("200 OK", TEXT)
    return [" ".join(k.__module__ + "." + k.__name__ for k in kinds).encode()]


def read(environ, start_response):
    stream = environ["wsgi.input"]
    how = parse_qs(environ["QUERY_STRING"])["how"][0]
    result = eval(how, {"stream": stream, "io": io})
    start_response("200 OK", TEXT)
    return [repr(result).encode()]


def count(environ, start_response):
    total, stream = 0, environ["wsgi.input"]
    while True:
        block = stream.read(50000)
        if not block:
            break
        total += len(block)
    start_response("200 OK", TEXT)
    return [b"%d" % total]


def echo(environ, start_response):
    start_response("200 OK", TEXT)
    return iter(lambda: environ["wsgi.input"].read(40000), b"")


def exactly(environ, start_response):
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    start_response("200 OK", TEXT)
    return [b"%d" % len(body)]


def unread(environ, start_response):
    start_response("200 OK", TEXT)
    return [b"x" * 300000]


def blocks(environ, start_response):
    start_response("200 OK", TEXT)
    for name in ("one", "two"):
        yield name.encode()
        assert gate(name).wait(60)
    yield b""
    yield b"end"


def go(environ, start_response):
    gate(parse_qs(environ["QUERY_STRING"])["gate"][0]).set()
    start_response("200 OK", TEXT)
    return [b"gone"]


def wait(environ, start_response):
    name = parse_qs(environ["QUERY_STRING"])["gate"][0]
    gate("waits-" + name).set()
    assert gate(name).wait(60)
    start_response("200 OK", TEXT)
    return [b"waited"]


def spin(environ, start_response):
    """Computes until somebody opens the gate."""
    name = parse_qs(environ["QUERY_STRING"])["gate"][0]
    while not gate(name).is_set():
        sum(range(100))
    start_response("200 OK", TEXT)
    return [b"spun"]


def sleep(environ, start_response):
    import time
    time.sleep(int(parse_qs(environ["QUERY_STRING"])["ms"][0]) / 1000)
    start_response("200 OK", TEXT)
    return [b"slept"]


def compute(environ, start_response):
    import time
    end = time.thread_time() + int(parse_qs(environ["QUERY_STRING"])["ms"][0]) / 1000
    while time.thread_time() < end:
        sum(range(1000))
    start_response("200 OK", TEXT)
    return iter([b"computed"])


def raise_early(environ, start_response):
    raise RuntimeError("early \u00e9")


def raise_late(environ, start_response):
    start_response("200 OK", TEXT)
    return Blocks("late", [b"before", b"never"], fail_at=1)


def with_close(environ, start_response):
    start_response("200 OK", TEXT)
    return Blocks("fine", [b"a", b"b"])


def bad_close(environ, start_response):
    start_response("200 OK", TEXT)
    return Blocks("bad", [b"a"], fail_close=True)


def endless(environ, start_response):
    start_response("200 OK", TEXT)
    return Blocks("endless", [b"y" * 65536] * 100000)


def closings(environ, start_response):
    start_response("200 OK", TEXT)
    return [" ".join(closed).encode()]


def leave(environ, start_response):
    sys.exit("bye")


def timeout(environ, start_response):
    import mod_wsgi
    raise mod_wsgi.RequestTimeout("too long")


def not_bytes(environ, start_response):
    start_response("200 OK", TEXT)
    return Blocks("str", ["text"])


def silent(environ, start_response):
    return [b"no head"]


def length(environ, start_response):
    q = parse_qs(environ["QUERY_STRING"])
    start_response(q.get("status", ["200 OK"])[0], TEXT + [("Content-Length", q["says"][0])])
    return Blocks("length", [b"z" * int(n) for n in q["gives"]])


def status(environ, start_response):
    start_response(parse_qs(environ["QUERY_STRING"])["is"][0], [])
    return []


def refused(environ, start_response):
    """What start_response says to bad arguments."""
    arguments = eval(parse_qs(environ["QUERY_STRING"])["with"][0])
    try:
        start_response(*arguments)
    except Exception as e:
        start_response("200 OK", TEXT)
        return [("%s:%s" % (type(e).__name__, e)).encode("utf-8", "backslashreplace")]
    return [b"accepted"]


def write(environ, start_response):
    write = start_response("200 OK", TEXT)
    write(b"written-")
    return [b"returned"]


def exc_info(environ, start_response):
    write = start_response("200 OK", TEXT)
    try:
        raise KeyError("first")
    except KeyError:
        write = start_response("500 Oops", [("X-Second", "yes")], sys.exc_info())
    write(b"sent ")
    try:
        raise ValueError("second")
    except ValueError:
        try:
            start_response("500 Never", [], sys.exc_info())
        except ValueError as e:
            write(b"reraised ")
            assert e.__traceback__ is not None
    try:
        start_response("200 Never", [])
    except RuntimeError as e:
        write(str(e).encode())
    return []


def log(environ, start_response):
    errors = environ["wsgi.errors"]
    errors.write("first line\nsecond \u20ac \udc80\n")
    print("from stderr", file=sys.stderr)
    errors.writelines(["a", "b\n"])
    errors.buffer.write(bytearray(b"bytes\n"))
    thread = threading.Thread(target=lambda: errors.write("from a thread\n"))
    thread.start()
    thread.join()
    errors.write("without end")
    start_response("200 OK", TEXT)
    return [b"logged"]


kept = {}


def keep(environ, start_response):
    kept.update(errors=environ["wsgi.errors"], input=environ["wsgi.input"], start=start_response, write=start_response("200 OK", TEXT))
    return [b"kept"]


def use_kept(environ, start_response):
    said = []
    for use in (lambda: kept["write"](b"x"), lambda: kept["start"]("200 OK", []), lambda: kept["input"].read(1)):
        try:
            use()
            said.append("accepted")
        except Exception as e:
            said.append(type(e).__name__)
    start_response("200 OK", TEXT)
    return [" ".join(said).encode()]


def break_errors(environ, start_response):
    environ["wsgi.errors"].detach()
    start_response("200 OK", TEXT)
    return [b"broken"]


def file(environ, start_response):
    kind = parse_qs(environ["QUERY_STRING"])["of"][0]

    class Bare:
        def __init__(self):
            self.data = io.BytesIO(b"bare" * 5000)

        def read(self, n):
            return self.data.read(n)

    body = Bare() if kind == "bare" else open(__file__, "rb")
    start_response("200 OK", TEXT)
    return environ["wsgi.file_wrapper"](body, 8192)


def fork(environ, start_response):
    pid = os.fork()
    if pid == 0:
        print("from the child", file=sys.stderr)
        start_response("200 OK", TEXT)
        return [b"the child must not answer"]
    os.waitpid(pid, 0)
    start_response("200 OK", TEXT)
    return [b"parent"]


def thread(environ, start_response):
    me = threading.current_thread()
    start_response("200 OK", TEXT)
    return [("%s %s %s" % (type(me).__name__, me.name, me.daemon)).encode()]


def validated(environ, start_response):
    def inner(environ, start_response):
        body = environ["wsgi.input"].read(5)
        environ["wsgi.errors"].write("valid\n")
        start_response("200 OK", [("Content-Type", "text/plain")])
        return iter([b"valid ", body])

    return validator(inner)(environ, start_response)


def module(environ, start_response):
    import mod_wsgi
    start_response("200 OK", TEXT)
    facts = (mod_wsgi.version, mod_wsgi.process_group, mod_wsgi.maximum_processes, mod_wsgi.threads_per_process, sys.argv, __name__[:10],
             sys.modules[__name__].__file__ == __file__)
    return [repr(facts).encode()]


def at_the_end(environ, start_response):
    import atexit
    import mod_wsgi
    mod_wsgi.subscribe_shutdown(lambda name, **more: print("callback", name, flush=True))
    atexit.register(lambda: print("atexit", flush=True))
    start_response("200 OK", TEXT)
    return [b"registered"]


def hang_at_the_end(environ, start_response):
    threading.Thread(target=lambda: gate("never").wait()).start()
    start_response("200 OK", TEXT)
    return [b"started"]


def application(environ, start_response):
    return globals()[environ["PATH_INFO"].lstrip("/")](environ, start_response)


def hold_the_lock(environ, start_response):
    """C code that sleeps with Python's lock."""
    import ctypes
    ctypes.PyDLL(None).sleep(3600)


def swallow(environ, start_response):
    """Is interrupted once and goes on."""
    import mod_wsgi
    try:
        while True:
            sum(range(100))
    except mod_wsgi.RequestTimeout:
        start_response("200 OK", TEXT)
        return [b"swallowed"]

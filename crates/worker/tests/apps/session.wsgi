"""What applications do with their session."""
import os
import threading
import time
import timeit

import mod_drover.session

TEXT = [("Content-Type", "text/plain")]
kept = []


def count(s, environ):
    s["n"] = s.get("n", 0) + 1
    return str(s["n"])


def said(call):
    try:
        return repr(call())
    except Exception as e:
        return "%s %s" % (type(e).__name__, e)


def in_thread(call):
    result = []
    thread = threading.Thread(target=lambda: result.append(said(call)))
    thread.start()
    thread.join()
    return Plain(result[0])


def in_child(call):
    child = os.fork()
    if child == 0:
        os._exit(0 if said(call).startswith("RuntimeError") else 1)
    return Plain("RuntimeError" if os.waitpid(child, 0)[1] == 0 else "something else")


class Plain(str):
    __repr__ = str.__str__


def bad(s, environ):
    s["good"], s["bad"] = 1, object()
    return ""


def fail(s, environ):
    s["n"] = 1
    raise ValueError("no")


def handled(s, environ):
    try:
        return s["n"]
    except mod_drover.session.SessionError as e:
        return "%s %s" % (type(e).__name__, e)


def large(s, environ):
    before = len(s.get("x", ""))
    s["x"] = "x" * int(environ["QUERY_STRING"])
    return str(before)


def keep(s, environ):
    s["a"]
    kept.append(s)
    return "kept"


def after(s, environ):
    old = kept.pop()
    return said(lambda: old.save())


def costs(s, environ):
    """Microseconds: the object, and one question with its answer."""
    make = min(timeit.repeat(lambda: mod_drover.session.Session(s._calls), number=100000, repeat=5)) * 10
    store = {}
    put = min(timeit.repeat(lambda: store.__setitem__("k", None), number=100000, repeat=5)) * 10
    ask = min(timeit.repeat(lambda: s._calls.exists("mine"), number=2000, repeat=5)) * 500
    begin = time.thread_time()
    for _ in range(2000):
        s._calls.exists("mine")
    cpu = (time.thread_time() - begin) * 500
    s["a"]
    read = min(timeit.repeat(lambda: s["a"], number=100000, repeat=5)) * 10
    change = min(timeit.repeat(lambda: s.__setitem__("a", 2), number=100000, repeat=5)) * 10
    text = "Session() %.3f us (the loop %.3f), question %.1f us (CPU here %.1f), s['a'] %.3f us, s['a'] = 2 %.3f us"
    return text % (make, put, ask, cpu, read, change)


PAGES = {
    "/count": count,
    "/untouched": lambda s, environ: repr(s),
    "/eval": lambda s, environ: repr(eval(environ["HTTP_CODE"], dict(globals(), s=s))),
    "/raise": fail,
    "/bad": bad,
    "/handled": handled,
    "/large": large,
    "/keep": keep,
    "/kept": after,
    "/costs": costs,
}


def stream(s):
    s["n"] = 1
    yield b"a"
    s["n"] = 2
    yield b"b"
    s["n"] = 3


def upload(s, body):
    """Reads the session before the body and in the middle of it."""
    s.read_only()["n"] if "n" in s.read_only() else None
    first = body.read(2000)
    s.lock()
    return str(s.get("n")).encode(), first + body.read()


def application(environ, start_response):
    s, path = environ.get("mod_drover.session"), environ["PATH_INFO"]
    if path == "/there":
        start_response("200 OK", TEXT)
        return [str(s is not None).encode()]
    if path in PAGES:
        body = PAGES[path](s, environ).encode()
        start_response("200 OK", TEXT)
        return [body]
    if path == "/upload":
        blocks = upload(s, environ["wsgi.input"])
        start_response("200 OK", TEXT)
        return list(blocks)
    if path == "/both":
        body = []
        reader = threading.Thread(target=lambda: body.append(environ["wsgi.input"].read()))
        reader.start()
        n = str(s.read_only()["n"]).encode()
        reader.join()
        start_response("200 OK", TEXT)
        return [n, body[0]]
    write = start_response("200 OK", TEXT)
    if path == "/stream":
        return stream(s)
    if path == "/write":
        s["n"] = 4
        write(b"written")
        return []
    if path == "/empty":
        s["n"] = 5
        return iter(())
    raise KeyError(path)

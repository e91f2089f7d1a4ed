"""A session by itself: each path does one thing with it."""
import os
from urllib.parse import parse_qsl

import gate


def count(session, query):
    session["n"] = session.get("n", 0) + 1
    return session["n"]


def read(session, query):
    return session.read_only().get("n", "none")


def state(session, query):
    return f"{session.id} {session.is_new} {session.engine}"


def login(session, query):
    session["user"] = query["name"]
    session.regenerate()
    return session["n"]


def login_and_fail(session, query):
    login(session, query)
    raise ValueError("after the login")


def late(session, query):
    """Answers before it looks at its session."""
    yield b"first\n"
    yield b"%d\n" % count(session, query)


def logout(session, query):
    session.invalidate()
    return "gone"


def hold(session, query):
    session["n"] = session.get("n", 0) + 1
    gate.reach("holding")
    gate.wait("go-on")
    return session["n"]


def large(session, query):
    session["large"] = "x" * int(query["size"])
    return "stored"


def short(session, query):
    session.timeout = 1
    return count(session, query)


def odd(session, query):
    session["good"] = 1
    session["odd"] = object()
    return "never"


def application(environ, start_response):
    query = dict(parse_qsl(environ["QUERY_STRING"]))
    answer = globals()[environ["PATH_INFO"].rsplit("/", 1)[-1]](environ["mod_drover.session"], query)
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Pid", str(os.getpid()))])
    if environ["PATH_INFO"].endswith("/late"):
        return answer
    return [str(answer).encode()]

"""The same answer without a session, with one that is read, with one that is read and written; /new makes one, /fill many."""
import os


def hello(environ):
    pass


def read(environ):
    environ["mod_drover.session"].read_only().get("n")


def write(environ):
    session = environ["mod_drover.session"]
    session["n"] = session.get("n", 0) + 1


def new(environ):
    environ["mod_drover.session"].update(n=1, user="somebody", text="x" * 200)


def fill(environ):
    """Sessions that live, so that others are found among them."""
    calls = environ["mod_drover.session"]._calls
    data = b'{"n": 1, "text": "%s"}' % (b"x" * 250)
    for _ in range(int(environ["QUERY_STRING"])):
        calls.save("f" + os.urandom(16).hex(), data, 2, 0, 0, False, None, False)


PATHS = {"/hello": hello, "/read": read, "/write": write, "/new": new, "/fill": fill}


def application(environ, start_response):
    PATHS[environ["PATH_INFO"]](environ)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "6")])
    return [b"Hello\n"]

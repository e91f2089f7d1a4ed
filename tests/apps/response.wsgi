"""One behaviour of a response for each path; see tests/response.rs."""
import io
import sys

import gate

TEXT = [("Content-Type", "text/plain")]


def streaming(environ, start_response):
    """Each block waits until the test has seen the one before."""
    start_response("200 OK", TEXT)
    for i in range(3):
        yield b"block %d\n" % i
        gate.wait("next")


def stop_after_head(environ, start_response):
    start_response("200 OK", TEXT + [("X-Seen", "yes")])
    yield b""
    gate.wait("next")
    yield b"late\n"


def write(environ, start_response):
    send = start_response("200 OK", TEXT)
    send(b"written ")
    gate.wait("next")
    send(b"twice, ")
    return [b"and returned\n"]


def exc_info_before(environ, start_response):
    start_response("200 OK", TEXT)
    try:
        raise ValueError("changed my mind")
    except ValueError:
        start_response("500 Changed", TEXT, sys.exc_info())
    return [b"the second head\n"]


def exc_info_after(environ, start_response):
    send = start_response("200 OK", TEXT)
    send(b"too late ")
    try:
        raise ValueError("after the head")
    except ValueError:
        start_response("500 Changed", TEXT, sys.exc_info())
    return [b"never seen\n"]


def twice(environ, start_response):
    start_response("200 OK", TEXT)
    start_response("201 Created", TEXT)
    return [b"x"]


class Closing:
    """An iterable that tells each call of its close()."""

    def __init__(self, blocks, fail=False):
        self.blocks, self.fail = iter(blocks), fail

    def __iter__(self):
        return self

    def __next__(self):
        block = next(self.blocks)
        if block is None:
            raise RuntimeError("broken in the middle")
        return block

    def close(self):
        gate.reach("closed")
        if self.fail:
            raise RuntimeError("close() fails too")


def close(environ, start_response):
    start_response("200 OK", TEXT)
    return Closing([b"a", b"b"])


def close_after_error(environ, start_response):
    start_response("200 OK", TEXT)
    return Closing([b"a" * 100, None, b"b"])


def close_endless(environ, start_response):
    start_response("200 OK", TEXT)

    def blocks():
        while True:
            yield b"x" * 65536

    return Closing(blocks())


def close_fails(environ, start_response):
    start_response("200 OK", TEXT)
    return Closing([b"all of it\n"], fail=True)


def too_long(environ, start_response):
    start_response("200 OK", TEXT + [("Content-Length", "5")])
    return [b"1234", b"5678", b"9"]


def too_short(environ, start_response):
    start_response("200 OK", TEXT + [("Content-Length", "10")])
    return [b"1234"]


def single(environ, start_response):
    start_response("200 OK", TEXT)
    return [b"no length given\n"]


def empty(environ, start_response):
    start_response("200 OK", TEXT)
    return []


def no_content(environ, start_response):
    start_response("204 No Content", [])
    return []


def not_modified(environ, start_response):
    start_response("304 Not Modified", [("ETag", '"x"')])
    return []


def method(environ, start_response):
    body = environ["REQUEST_METHOD"].encode()
    start_response("200 OK", TEXT + [("Content-Length", str(len(body))), ("X-Method", environ["REQUEST_METHOD"])])
    return [body]


def cookies(environ, start_response):
    start_response("200 OK", TEXT + [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2; Path=/"), ("X-Many", "1"), ("Set-Cookie", "c=3")])
    return [b"cookies"]


def status_text(environ, start_response):
    start_response("299 Quite Unusual (really)", TEXT)
    return [b"x"]


def status_alone(environ, start_response):
    """A status without words, as the query says it."""
    start_response(environ["QUERY_STRING"], TEXT)
    return [b"x"]


def spaces(environ, start_response):
    start_response("200 OK", TEXT + [("Set-Cookie", " a=1"), ("X-Space", "  b"), ("X-Tab", "\tc")])
    return [b"x"]


def partial(environ, start_response):
    start_response("206 Partial Content", TEXT + [("Content-Range", "bytes 1-1/3"), ("Content-Length", "1")])
    return [b"b"]


def latin1(environ, start_response):
    start_response("200 OK", TEXT + [("X-Name", "caf\xe9")])
    return [b"x"]


def bad_header(environ, start_response):
    """The query says which header or status is wrong."""
    bad = {
        "crlf": ("200 OK", [("X-A", "b\r\nX-Injected: 1")]),
        "lf": ("200 OK", [("X-A", "b\nc")]),
        "nul": ("200 OK", [("X-A", "b\0c")]),
        "name": ("200 OK", [("X A\r\nX-Injected", "1")]),
        "unicode": ("200 OK", [("X-A", "\u20ac")]),
        "type": ("200 OK", [("X-A", 5)]),
        "bytes": ("200 OK", [(b"X-A", b"5")]),
        "status": ("200 OK\r\nX-Injected: 1", []),
        "status-type": (200, []),
        "status-number": ("OK", []),
        "pair": ("200 OK", [("X-A", "b", "c")]),
        "tuple": ("200 OK", (("X-A", "b"),)),
    }[environ["QUERY_STRING"]]
    start_response(*bad)
    return [b"must not be sent"]


def hop_by_hop(environ, start_response):
    start_response("200 OK", TEXT + [(environ["QUERY_STRING"], "x")])
    return [b"must not be sent"]


def text_block(environ, start_response):
    start_response("200 OK", TEXT)
    return ["text and not bytes"]


def not_iterable(environ, start_response):
    start_response("200 OK", TEXT)
    return None


def no_head(environ, start_response):
    return [b"no head was made"]


def large(environ, start_response):
    n = int(environ["QUERY_STRING"])
    start_response("200 OK", TEXT + [("Content-Length", str(n << 16))])
    return (bytes([65 + i % 26]) * 65536 for i in range(n))


def large_one(environ, start_response):
    start_response("200 OK", TEXT)
    return [b"0123456789abcdef" * (int(environ["QUERY_STRING"]) << 16)]


def many_small(environ, start_response):
    start_response("200 OK", TEXT)
    return (b"%d\n" % i for i in range(int(environ["QUERY_STRING"])))


def empty_blocks(environ, start_response):
    start_response("200 OK", TEXT)
    return [b"", b"a", b"", b"b", b""]


def file(environ, start_response):
    start_response("200 OK", TEXT)
    return environ["wsgi.file_wrapper"](open(environ["test.file"], "rb"), 8192)


def file_from_middle(environ, start_response):
    start_response("200 OK", TEXT)
    f = open(environ["test.file"], "rb")
    f.seek(1000)
    return environ["wsgi.file_wrapper"](f)


def file_like(environ, start_response):
    """An object without fileno and without close."""

    class Reader:
        def __init__(self):
            self.stream = io.BytesIO(b"0123456789" * 5000)

        def read(self, n=-1):
            return self.stream.read(n)

    start_response("200 OK", TEXT)
    return environ["wsgi.file_wrapper"](Reader(), 1000)


def fail_mid_stream(environ, start_response):
    start_response("200 OK", TEXT)
    yield b"the first half\n"
    raise RuntimeError("broken in the middle")


def early_hints(environ, start_response):
    start_response("103 Early Hints", [("Link", "</a.css>; rel=preload")])
    return []


def application(environ, start_response):
    return globals()[environ["PATH_INFO"].strip("/")](environ, start_response)

"""Reads the request body in the way the path names, and tells what it got."""
import hashlib
import json


def read_all(stream):
    return stream.read()


def read_none(stream):
    return stream.read(-1)


def blocks(stream):
    return b"".join(iter(lambda: stream.read(65536), b""))


def odd(stream):
    return b"".join(iter(lambda: stream.read(8191), b""))


def lines(stream):
    return b"".join(stream)


def readlines(stream):
    return b"".join(stream.readlines())


def readline(stream):
    return b"".join(iter(stream.readline, b""))


def short_lines(stream):
    return b"".join(iter(lambda: stream.readline(100), b""))


def nothing(stream):
    return b""


WAYS = {f.__name__: f for f in (read_all, read_none, blocks, odd, lines, readlines, readline, short_lines, nothing)}


def application(environ, start_response):
    way = environ["PATH_INFO"].strip("/")
    if way == "count":  # constant memory
        digest, size = hashlib.sha256(), 0
        while block := environ["wsgi.input"].read(1 << 20):
            size += len(block)
            digest.update(block)
        answer = {"size": size, "sha256": digest.hexdigest()}
    else:
        body = WAYS[way](environ["wsgi.input"])
        answer = {"size": len(body), "sha256": hashlib.sha256(body).hexdigest(), "after": len(environ["wsgi.input"].read())}
    answer["length"] = environ.get("CONTENT_LENGTH")
    out = json.dumps(answer).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(out)))])
    return [out]

"""Answers 300 KB without reading the request's body, or while reading it."""


def application(environ, start_response):
    way = environ["PATH_INFO"].strip("/")
    if way == "ignore":
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "300000")])
        return (b"x" * 10000 for _ in range(30))
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return iter(lambda: environ["wsgi.input"].read(65536), b"")

"""The smallest application, checked."""
from wsgiref.validate import validator


@validator
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "14")])
    return [b"Hello, drover\n"]

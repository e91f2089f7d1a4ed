"""Gives the environ back as JSON; what is not text or number by its type's name."""
import json
from wsgiref.validate import validator


def plain(value):
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    if isinstance(value, tuple):
        return list(value)
    return f"<{type(value).__module__}.{type(value).__qualname__}>"


def application(environ, start_response):
    body = json.dumps({key: plain(value) for key, value in environ.items()}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


checked = validator(application)
other = application

"""Does the same operations on wsgi.input and on an io.BytesIO with the body that is known to come, and compares each result.

The query is a list of operations, `read`, `read:5`, `readline:80`, `readlines:30`, `next`, divided by commas; the header X-Body gives the body in hex.
"""
import io


def apply(stream, operation):
    name, _, argument = operation.partition(":")
    arguments = [None if argument == "None" else int(argument)] if argument else []
    if name == "next":
        return next(iter(stream), b"")
    return getattr(stream, name)(*arguments)


def application(environ, start_response):
    ours, theirs = environ["wsgi.input"], io.BytesIO(bytes.fromhex(environ.get("HTTP_X_BODY", "")))
    faults = []
    for operation in filter(None, environ["QUERY_STRING"].split(",")):
        got, wanted = apply(ours, operation), apply(theirs, operation)
        if got != wanted:
            faults.append(f"{operation}: {got!r} and not {wanted!r}")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return ["\n".join(faults or ["same"]).encode()]

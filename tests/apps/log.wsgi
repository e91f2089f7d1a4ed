"""Writes to every place that ends in a log; see tests/logging.rs."""
import logging
import os
import sys

logging.basicConfig(level=logging.INFO, format="logging says %(message)s")


def errors(environ, start_response):
    environ["wsgi.errors"].write("to wsgi.errors: caf\xe9\n")
    environ["wsgi.errors"].writelines(["one ", "line\n"])
    environ["wsgi.errors"].flush()
    print("printed to wsgi.errors", file=environ["wsgi.errors"])


def stdout(environ, start_response):
    print("printed to stdout")
    sys.stdout.flush()


def stderr(environ, start_response):
    print("printed to stderr", file=sys.stderr)


def log(environ, start_response):
    logging.getLogger("shop").warning("a warning")


def raw(environ, start_response):
    os.write(1, b"raw on descriptor 1\n")
    os.write(2, b"raw on descriptor 2\n")


def partial(environ, start_response):
    environ["wsgi.errors"].write("a line without its end")


def crash(environ, start_response):
    for i in range(200):
        print(f"line {i} before the crash", file=sys.stderr)
    print("the last line before the crash", file=sys.stderr)
    os._exit(9)


def long(environ, start_response):
    environ["wsgi.errors"].write("x" * 20000 + " end of the long line\n")


def format(environ, start_response):
    environ["wsgi.errors"].write("%s%n%d \\n \x1b[31m \t tab\n")


def application(environ, start_response):
    globals()[environ["PATH_INFO"].strip("/")](environ, start_response)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"done"]

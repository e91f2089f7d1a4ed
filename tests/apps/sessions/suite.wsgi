"""Answers a request with what Django's tests of session engines say; ?only=NAME runs one of them."""
import os
import sys
from urllib.parse import parse_qs

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import django_suite  # noqa: E402


def application(environ, start_response):
    only = parse_qs(environ["QUERY_STRING"]).get("only", [None])[0]
    count, bad = django_suite.run(only)
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [("%d tests, %d bad\n%s\n" % (count, len(bad), "\n".join(bad))).encode()]

"""Compiled regular expressions, kept in the process."""
import json
import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import gate  # noqa: E402

from mod_drover import cache  # noqa: E402


def build():
    gate.reach("building")
    gate.wait("build")
    return [re.compile("^/%d/" % n) for n in range(100)]


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    if environ["PATH_INFO"] == "/figures":
        return [json.dumps(dict(cache.stats(), pid=os.getpid())).encode()]
    rules = cache.get_or_build("rules", build)
    found = [rule.pattern for rule in rules if rule.match(environ["PATH_INFO"])]
    return [json.dumps({"found": found, "rules": id(rules)}).encode()]

"""Shows which process and group answered the request. Run it: make run, or drover serve examples/hello.wsgi"""
import os
import sys


def application(environ, start_response):
    lines = [
        "Hello from mod_drover.",
        "",
        f"process      {os.getpid()}, Python {sys.version.split()[0]} at {sys.executable}",
        f"group        {environ.get('mod_wsgi.process_group', '?')}",
        f"request      {environ['REQUEST_METHOD']} {environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}",
        f"server       {environ.get('SERVER_SOFTWARE', '?')}",
        "",
    ]
    body = "\n".join(lines).encode()
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]

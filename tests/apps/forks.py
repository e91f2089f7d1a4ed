"""Children of every kind, each of which uses what a worker has of ours; see tests/forks.rs."""
import concurrent.futures
import json
import logging
import multiprocessing
import os
import pty
import signal
import subprocess
import sys

import mod_drover.cache

logging.basicConfig(level=logging.INFO, stream=sys.stderr)
_has_read = False
context = multiprocessing.get_context("fork")


def use(environ):
    """In a child: everything that could wait for a thread of the parent."""
    signal.alarm(30)  # ends a child that hangs
    print("a child prints")
    sys.stdout.write("a child writes a line without its end")
    print("a child complains", file=sys.stderr)
    logging.getLogger("child").warning("a child logs")
    for stream in [sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__, environ["wsgi.errors"]]:
        stream.flush()
    print("a child uses wsgi.errors", file=environ["wsgi.errors"])
    environ["wsgi.errors"].write("and begins a line")
    environ["wsgi.errors"].flush()
    global _has_read
    assert environ["wsgi.input"].read() == (b"" if _has_read else b"all of the body")
    _has_read = True  # a child of an executor does this several times
    assert mod_drover.cache.get_or_build("key", lambda: 1) == 1
    assert mod_drover.cache.get_or_build("another key", lambda: 2) == 2
    for refused in [lambda: environ["mod_drover.session"].get("x"), lambda: environ["test.write"](b"x")]:
        try:
            refused()
        except Exception as e:
            assert "forked child process" in str(e), e
        else:
            raise AssertionError("a child was not refused")
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
    signal.alarm(0)
    return 7


def ends(pid):
    return os.waitpid(pid, 0)[1]


def with_fork(environ):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            use(environ)
            status = 0
        finally:
            os._exit(status)
    return ends(pid)


def with_forkpty(environ):
    pid, terminal = pty.fork()
    if pid == 0:
        status = 1
        try:
            use(environ)
            status = 0
        finally:
            os._exit(status)
    try:
        while os.read(terminal, 4096):
            pass
    except OSError:
        pass  # the child has ended
    os.close(terminal)
    return ends(pid)


def with_preexec(environ):
    return subprocess.run(["true"], preexec_fn=lambda: use(environ) and None, stderr=sys.stderr).returncode


def with_multiprocessing(environ):
    process = context.Process(target=use, args=(environ,))
    process.start()
    process.join()
    while process.exitcode is None:
        pass  # another thread that starts a process has waited for this one, and is about to say so
    return process.exitcode


_environ = None


def _use_inherited(_):
    return use(_environ)


def with_executor(environ):
    global _environ
    _environ = environ
    with concurrent.futures.ProcessPoolExecutor(4, mp_context=context) as executor:
        return 0 if set(executor.map(_use_inherited, range(8))) == {7} else 1


KINDS = {
    "fork": with_fork, "forkpty": with_forkpty, "preexec": with_preexec, "multiprocessing": with_multiprocessing,
    "executor": with_executor,
}


def noise(environ):
    for i in range(40):
        print("noise", i, file=environ["wsgi.errors"])
        print("noise on stderr", i, file=sys.stderr)
        print("noise on stdout", i)
        logging.getLogger("noise").warning("noise logged %d", i)
        mod_drover.cache.get_or_build(("noise", i % 3), lambda: i)
    environ["mod_drover.session"]["noise"] = i
    return 0


def application(environ, start_response):
    kind, times = environ["PATH_INFO"].strip("/"), int(environ["QUERY_STRING"] or 1)
    environ["test.write"] = start_response("200 OK", [("Content-Type", "application/json")])
    if kind == "noise":
        answer = noise(environ)
    else:
        answer = [KINDS[kind](environ) for _ in range(times)]
    return [json.dumps([os.getpid(), answer]).encode()]

"""Applications that fail, one for each path; see tests/failures.rs."""
import ctypes
import os
import signal
import sys
import threading

import gate


def ok(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % os.getpid()]


def exception(environ, start_response):
    raise ValueError("thrown on purpose")


def base_exception(environ, start_response):
    raise KeyboardInterrupt("on purpose")


def sys_exit(environ, start_response):
    sys.exit(3)


def at_iteration(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    raise ValueError("thrown at the first block")
    yield b""


def hang(environ, start_response):
    gate.reach("hanging", b".")
    gate.wait("go-on")
    return ok(environ, start_response)


def die(environ, start_response):
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


def die_mid_stream(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"the first half\n"
    gate.wait("go-on")
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


def segfault(environ, start_response):
    ctypes.string_at(0)


def os_exit(environ, start_response):
    os._exit(7)


def thread(environ, start_response):
    """An exception in a thread of the application's own harms nothing."""
    t = threading.Thread(target=lambda: 1 / 0)
    t.start()
    t.join()
    return ok(environ, start_response)


def application(environ, start_response):
    return globals()[environ["PATH_INFO"].strip("/")](environ, start_response)

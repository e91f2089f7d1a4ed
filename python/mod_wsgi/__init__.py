"""The part of mod_wsgi's Python API that mod_drover supports.

Only a worker of mod_drover can import it.
"""
import sys as _sys
import traceback as _traceback

from _drover import FileWrapper  # noqa: F401  (part of the API)

version = (0, 0, 0)
process_group = ""
application_group = ""
maximum_processes = 1
threads_per_process = 1
shutdown_callbacks = []


class RequestTimeout(BaseException):
    """Raised in a request that exceeds its time limit; the client gets 504."""


def subscribe_shutdown(callback):
    """Has `callback("process_stopping", shutdown_reason=…)` called before the process exits."""
    shutdown_callbacks.append(callback)
    return callback


def _stopping(reason=""):
    for callback in list(shutdown_callbacks):
        try:
            callback("process_stopping", shutdown_reason=reason)
        except BaseException:
            _traceback.print_exc()


def _configure(number, group, application, processes, threads):
    global version, process_group, application_group, maximum_processes, threads_per_process
    version, process_group, application_group = number, group, application
    maximum_processes, threads_per_process = processes, threads
    # PyPI's mod_wsgi has more than this module: `mod_wsgi.server` and others stay importable.
    from importlib.machinery import PathFinder

    others = [entry for entry in _sys.path if not __file__.startswith(entry + "/mod_wsgi/")]
    found = PathFinder.find_spec("mod_wsgi", others)
    for directory in (found and found.submodule_search_locations) or []:
        if directory not in __path__:
            __path__.append(directory)

"""The worker's threads as `threading` sees them, and the application's threads when the process exits.

Loaded before any code of the application, and keeps what it needs of `threading`: a worker does not depend on what an application or
a library (gevent, eventlet, a profiler) replaces there later.
"""
import sys
import threading
import time
import weakref
from threading import Thread, main_thread

_init = Thread.__init__
_is_alive = Thread.is_alive
_monotonic = time.monotonic
_frames = sys._current_frames
_get_ident = threading.get_ident
_main = main_thread()
# Threads that were started while scripts were imported.
_early = weakref.WeakSet()


def adopt(name):
    """Makes the calling thread, which the worker has started natively, a daemon thread of `threading` with this name."""
    try:
        thread = Thread.__new__(Thread)
        _init(thread, name=name, daemon=True)
        thread._set_ident()
        if hasattr(thread, "_set_tstate_lock"):  # until 3.12
            thread._set_tstate_lock()
        else:
            handle = "_os_thread_handle" if hasattr(thread, "_os_thread_handle") else "_handle"
            setattr(thread, handle, threading._make_thread_handle(thread._ident))
        thread._set_native_id()
        thread._started.set()
        with threading._active_limbo_lock:
            threading._active[thread._ident] = thread
    except Exception:
        # A `threading` of another shape. It knows foreign threads by itself.
        thread = threading.current_thread()
        thread.name = name
    return thread


def release(thread):
    """The calling thread, `thread`, ends."""
    try:
        thread._delete()
        handle = getattr(thread, "_os_thread_handle", None) or getattr(thread, "_handle", None)
        if handle is not None:
            handle._set_done()
    except Exception:
        pass  # it is a dummy of another shape, or gone already


def begin_import():
    """From now on threads inherit what they inherit in a request: they are daemons unless told otherwise."""
    _main._daemonic = True


def end_import():
    """The scripts are imported. The threads that run now do not keep the process."""
    _main._daemonic = False
    _early.update(threading.enumerate())


def _others():
    """The threads of `threading` but for the calling one. eventlet lists a main thread of its own making."""
    mine = (_get_ident(), threading.get_ident())
    return [t for t in threading.enumerate() if t is not _main and t.ident not in mine]


def other_names():
    return [thread.name for thread in _others()]


def is_green():
    """Whether a library has replaced threads by greenlets."""
    return threading.get_ident is not _get_ident


def exit_functions():
    """What `threading` calls when a process exits (executors wait for their work there), in order. The caller calls them."""
    functions = getattr(threading, "_threading_atexits", [])
    taken = list(reversed(functions))
    functions.clear()
    return taken


def shut_down():
    """Tells `threading` that the main thread is done. Does not wait for threads: `wait` does so later, with a limit."""
    locks = getattr(threading, "_shutdown_locks", None)
    if locks is not None:  # until 3.12
        locks.clear()
    if hasattr(threading, "_thread_shutdown"):  # from 3.13 on
        threading._thread_shutdown = lambda: None
    threading._shutdown()


def _executors():
    """The threads of executors that are at work."""
    kinds = (("concurrent.futures.thread", "_threads_queues"), ("concurrent.futures.process", "_threads_wakeups"))
    return [thread for module, name in kinds for thread in list(getattr(sys.modules.get(module), name, ()))]


def _unfinished():
    """Started by requests: threads that are no daemons, and those of executors."""
    seen = [t for t in _others() if not t.daemon] + _executors()
    dummy = getattr(threading, "_DummyThread", ())
    return [t for t in dict.fromkeys(seen) if t not in _early and not isinstance(t, dummy) and t.is_alive()]


def wait(seconds):
    """Waits for the threads that requests have started; the descriptions of those that still run."""
    end = _monotonic() + seconds
    while True:
        rest = _unfinished()
        left = end - _monotonic()
        if not rest or left <= 0:
            return [_describe(thread) for thread in rest]
        rest[0].join(left)


def held_by(ident):
    """What the thread with this identifier waits for, in words."""
    frame = top = _frames().get(ident)
    while frame is not None:
        thread = frame.f_locals.get("self") if frame.f_code.co_name == "join" else None
        if isinstance(thread, Thread):
            return _describe(thread)
        frame = frame.f_back
    return "a function registered for the exit" + _place(top)


def _describe(thread):
    return "thread '%s'%s" % (thread.name, _place(_frames().get(thread.ident)))


def _place(frame):
    """Where the application's code is, as far as it is known."""
    while frame is not None and frame.f_back is not None and frame.f_code.co_filename == threading.__file__:
        frame = frame.f_back
    return " (%s:%d in %s)" % (frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name) if frame is not None else ""

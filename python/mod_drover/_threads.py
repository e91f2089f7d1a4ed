"""Registers the worker's threads with `threading`, and handles the application's threads at exit.

The worker loads this module before any code of the application. It keeps the parts of `threading`
that it needs: an application or a library (gevent, eventlet, a profiler) may replace them later.
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
# Threads started by the import of a script.
_early = weakref.WeakSet()


def adopt(name):
    """Makes the calling native thread a daemon thread of `threading` with this name."""
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
        # An unknown version of `threading`. It registers foreign threads by itself.
        thread = threading.current_thread()
        thread.name = name
    return thread


def release(thread):
    """Unregisters the calling thread, which is `thread` and is about to end."""
    try:
        thread._delete()
        handle = getattr(thread, "_os_thread_handle", None) or getattr(thread, "_handle", None)
        if handle is not None:
            handle._set_done()
    except Exception:
        pass  # it is an unknown kind of dummy, or was removed already


def begin_import():
    """From now on threads inherit what they inherit in a request: they are daemons by default."""
    _main._daemonic = True


def end_import():
    """The scripts are imported. The threads that run now do not keep the process from exiting."""
    _main._daemonic = False
    _early.update(threading.enumerate())


def _others():
    """The threads of `threading` without the calling one.

    eventlet lists a main thread of its own.
    """
    mine = (_get_ident(), threading.get_ident())
    return [t for t in threading.enumerate() if t is not _main and t.ident not in mine]


def other_names():
    """The names of all threads but the calling one."""
    return [thread.name for thread in _others()]


def is_green():
    """True if a library has replaced threads by greenlets."""
    return threading.get_ident is not _get_ident


def exit_functions():
    """The functions that `threading` calls at exit, in order. Executors wait for their work there.

    They are removed from `threading`: the caller must call them.
    """
    functions = getattr(threading, "_threading_atexits", [])
    taken = list(reversed(functions))
    functions.clear()
    return taken


def shut_down():
    """Tells `threading` that the main thread is done, without waiting for threads.

    `wait` waits for them later, with a time limit.
    """
    locks = getattr(threading, "_shutdown_locks", None)
    if locks is not None:  # until 3.12
        locks.clear()
    if hasattr(threading, "_thread_shutdown"):  # from 3.13 on
        threading._thread_shutdown = lambda: None
    threading._shutdown()


def _executors():
    """The threads of executors that still run."""
    kinds = (("concurrent.futures.thread", "_threads_queues"), ("concurrent.futures.process", "_threads_wakeups"))
    return [thread for module, name in kinds for thread in list(getattr(sys.modules.get(module), name, ()))]


def _unfinished():
    """Non-daemon threads and threads of executors that requests have started."""
    seen = [t for t in _others() if not t.daemon] + _executors()
    dummy = getattr(threading, "_DummyThread", ())
    return [t for t in dict.fromkeys(seen) if t not in _early and not isinstance(t, dummy) and t.is_alive()]


def wait(seconds):
    """Waits for the threads that requests have started; describes those that still run."""
    end = _monotonic() + seconds
    while True:
        rest = _unfinished()
        left = end - _monotonic()
        if not rest or left <= 0:
            return [_describe(thread) for thread in rest]
        rest[0].join(left)


def held_by(ident):
    """Describes what the thread with this identifier waits for."""
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
    """The location in the application's code, if known."""
    while frame is not None and frame.f_back is not None and frame.f_code.co_filename == threading.__file__:
        frame = frame.f_back
    return " (%s:%d in %s)" % (frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name) if frame is not None else ""

"""What mod_drover gives to the applications it runs. Elsewhere this package does nothing.

With `preload=On` a template process imports the application, and the processes that answer requests are forked from it:

    import mod_drover

    @mod_drover.before_fork
    def close_connections():        # in the template, before each fork
        pool.close()

    @mod_drover.after_fork
    def open_connections():         # in each new process, before it takes requests
        pool.open()

Without `preload=On` nothing is forked: what is given to `after_fork` runs once after the import, what is given to `before_fork` never.
"""

__all__ = ["before_fork", "after_fork"]

_before = []
_after = []
_is_template = False


def before_fork(function):
    """Calls `function()` in the template before each fork; of several, the last one first. Can be used as a decorator."""
    _before.append(function)
    return function


def after_fork(function):
    """Calls `function()` in each process after it was forked and before it takes requests. Can be used as a decorator.

    If it raises, the process fails to start, with the traceback in the log. A script that is imported later, with its first request,
    has its functions called right after the import.
    """
    _after.append(function)
    return function


def _run_before_fork():
    for function in reversed(_before):
        function()


def _run_after_fork():
    """In a worker: those that have not run yet."""
    if _is_template:
        return
    while _after:
        _after.pop(0)()

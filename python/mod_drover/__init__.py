"""What mod_drover offers to the applications it runs. Elsewhere this package does nothing.

With `preload=On` a fork server imports the application, and forks the workers that serve requests:

    import mod_drover

    @mod_drover.before_fork
    def close_connections():        # in the fork server, before each fork
        pool.close()

    @mod_drover.after_fork
    def open_connections():         # in each new worker, before it takes requests
        pool.open()

Without `preload=On` nothing is forked: `after_fork` functions run once after the import, and
`before_fork` functions never run.
"""

__all__ = ["before_fork", "after_fork"]

_before = []
_after = []
_is_fork_server = False


def before_fork(function):
    """Calls `function()` in the fork server before each fork. Can be used as a decorator.

    Several functions run in reverse order: the last one registered runs first.
    """
    _before.append(function)
    return function


def after_fork(function):
    """Calls `function()` in each new worker before it takes requests. Can be used as a decorator.

    If it raises, the worker fails to start, with the traceback in the log. The functions of a script
    that is imported later, with its first request, run right after the import.
    """
    _after.append(function)
    return function


def _run_before_fork():
    for function in reversed(_before):
        function()


def _run_after_fork():
    """Runs those that have not run yet, in a worker only."""
    if _is_fork_server:
        return
    while _after:
        _after.pop(0)()

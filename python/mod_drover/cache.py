"""Objects that are costly to make, kept in the process from one request to the next.

    import mod_drover.cache

    def rules():
        return [(re.compile(pattern), action) for pattern, action in load_patterns()]     # takes 30 seconds

    def application(environ, start_response):
        for pattern, action in mod_drover.cache.get_or_build("rules", rules, ttl=600):
            ...

The objects themselves are kept, not copies: nothing is pickled, and what one request changes in them all others see. Each process has its
own; with `preload=On`, what is built while the script is imported is shared by all of them. One thread builds a key at a time, the others
wait for it. What is older than its `ttl` is still given out while a thread in the background makes it anew, so only the very first request
ever waits.
"""
from collections import OrderedDict
from concurrent.futures import Future
import os
import sys
import threading
import time
import traceback

__all__ = ["Cache", "clear", "drop", "get_or_build", "set_limit", "stats"]

# After a build in the background has failed, the old object is used for so long before it is tried again.
RETRY = 5.0


class _Entry:
    __slots__ = ("value", "size", "until")

    def __init__(self, value, size, until):
        self.value, self.size, self.until = value, size, until


class Cache:
    """A cache of its own. The functions of this module use one that all parts of a process share.

    `limit` bounds the sum of the entries' sizes; what was used least recently goes first. The size of an entry is 1 unless it is given,
    so that the limit is a number of entries; but any unit will do, as long as it is the same for all.
    """

    def __init__(self, limit=1024):
        self._limit = limit
        self._forks = 0
        self._reset()
        os.register_at_fork(after_in_child=self._forked)

    def _reset(self):
        self._lock = threading.Lock()
        self._entries = OrderedDict()
        self._building = {}
        self._size = 0
        self._counts = dict.fromkeys(("hits", "stale", "misses", "builds", "failures", "evictions"), 0)
        self._seconds = 0.0

    def _forked(self):
        # The entries come along; the threads that build stay behind, perhaps with the lock, or between two changes.
        if self._lock.locked():
            self._size = sum(entry.size for entry in list(self._entries.values()))
        self._lock = threading.Lock()
        self._building = {}
        self._forks += 1

    def get_or_build(self, key, build, ttl=None, size=1):
        """The object under `key`; `build()` makes it if it is not there.

        `ttl`: after so many seconds it is made anew, in the background; None: never. `size`: what it counts against the limit, a number,
        or a function that is given the object. If `build` raises, so does this, for all that waited; nothing is kept.
        """
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
                if entry.until is None or time.monotonic() < entry.until:
                    self._counts["hits"] += 1
                    return entry.value
                self._counts["stale"] += 1
                if key in self._building:
                    return entry.value
                future = self._begin(key)
            else:
                self._counts["misses"] += 1
                future = self._building.get(key)
                if future is not None and future.thread == threading.get_ident():
                    raise RuntimeError("the function that builds %r wants to have it built" % (key,))
                mine = future is None
                if mine:
                    future = self._begin(key)
        if entry is not None:
            self._rebuild(key, build, ttl, size, future)
            return entry.value
        if mine:
            return self._build(key, build, ttl, size, future)
        return future.result()

    def _begin(self, key):
        future = self._building[key] = Future()
        future.thread = threading.get_ident()
        self._counts["builds"] += 1
        return future

    def _build(self, key, build, ttl, size, future):
        begun = time.monotonic()
        forks = self._forks
        try:
            value = build()
            weight = size(value) if callable(size) else size
        except BaseException as e:
            if forks != self._forks:
                raise  # in a child that `build` has forked: the waiting threads, and the locks they hold, are its parent's
            with self._lock:
                self._counts["failures"] += 1
                self._ended(key, future, begun)
            future.set_exception(e)
            raise
        if forks != self._forks:
            return value
        with self._lock:
            # Not when it was dropped meanwhile: then it was made from what is no longer true.
            if self._ended(key, future, begun):
                self._put(key, _Entry(value, weight, None if ttl is None else time.monotonic() + ttl))
        future.set_result(value)
        return value

    def _ended(self, key, future, begun):
        self._seconds += time.monotonic() - begun
        wanted = self._building.get(key) is future
        if wanted:
            del self._building[key]
        return wanted

    def _put(self, key, entry):
        self._take(key)
        if entry.size > self._limit:
            return  # it would drive out all others and still not fit
        self._entries[key] = entry
        self._size += entry.size
        self._shrink()

    def _take(self, key):
        old = self._entries.pop(key, None)
        if old is not None:
            self._size -= old.size
        return old is not None

    def _shrink(self):
        while self._size > self._limit and self._entries:
            self._take(next(iter(self._entries)))
            self._counts["evictions"] += 1

    def _rebuild(self, key, build, ttl, size, future):
        def run():
            future.thread = threading.get_ident()
            try:
                self._build(key, build, ttl, size, future)
            except BaseException:
                sys.stderr.write("mod_drover.cache: %r could not be built anew, the old one is used:\n%s" % (key, traceback.format_exc()))
                self._retry_later(key)

        try:
            threading.Thread(target=run, name="mod_drover.cache", daemon=True).start()
        except RuntimeError as e:
            # No more threads are to be had.
            with self._lock:
                self._ended(key, future, time.monotonic())
            future.set_exception(e)
            self._retry_later(key)

    def _retry_later(self, key):
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and entry.until is not None:
                entry.until = time.monotonic() + RETRY

    def drop(self, key):
        """Forgets an object; whether there was one. What is being built under this key now is not kept either."""
        with self._lock:
            self._building.pop(key, None)
            return self._take(key)

    def clear(self):
        """Forgets all of them."""
        with self._lock:
            self._building.clear()
            self._entries.clear()
            self._size = 0

    def set_limit(self, limit):
        """Sets the bound of the sum of sizes; what does not fit any more goes at once."""
        with self._lock:
            self._limit = limit
            self._shrink()

    def stats(self):
        """Figures of this process: entries, size, limit, hits, stale, misses, builds, failures, evictions, build_seconds."""
        with self._lock:
            return dict(
                self._counts, entries=len(self._entries), size=self._size, limit=self._limit, build_seconds=round(self._seconds, 6)
            )


_shared = Cache()
get_or_build = _shared.get_or_build
drop = _shared.drop
clear = _shared.clear
set_limit = _shared.set_limit
stats = _shared.stats

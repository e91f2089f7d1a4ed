"""Caches objects that are expensive to build, in the process, from one request to the next.

    import mod_drover.cache

    def rules():
        return [(re.compile(pattern), action) for pattern, action in load_patterns()]     # takes 30 seconds

    def application(environ, start_response):
        for pattern, action in mod_drover.cache.get_or_build("rules", rules, ttl=600):
            ...

The cache keeps the objects themselves, not copies: nothing is pickled, and all requests see what one
changes in them. Each process has its own cache; with `preload=On`, all workers share the memory of
objects built during the import. One thread builds a key at a time, and others wait for it. An object
older than its `ttl` is still returned while a background thread builds a new one: so only the very
first request waits.
"""
from collections import OrderedDict
from concurrent.futures import Future
import os
import sys
import threading
import time
import traceback

__all__ = ["Cache", "clear", "drop", "get_or_build", "set_limit", "stats"]

# Seconds until the next attempt after a build in the background has failed.
RETRY = 5.0


class _Entry:
    __slots__ = ("value", "size", "until")

    def __init__(self, value, size, until):
        self.value, self.size, self.until = value, size, until


class Cache:
    """A separate cache. The functions of this module use one that the whole process shares.

    `limit` bounds the sum of the entries' sizes; the least recently used entry is evicted first. An
    entry's size is 1 by default, so that the limit is a number of entries. Any other unit works if all
    entries use it.
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
        # The child has the entries, but not the threads that build. One of them may have held the
        # lock, between two changes.
        if self._lock.locked():
            self._size = sum(entry.size for entry in list(self._entries.values()))
        self._lock = threading.Lock()
        self._building = {}
        self._forks += 1

    def get_or_build(self, key, build, ttl=None, size=1):
        """Returns the object under `key`; calls `build()` if there is none.

        After `ttl` seconds it is built again in the background; None means never. `size` is what it
        counts against the limit: a number, or a function of the object. If `build` raises, this raises
        the same exception in all waiting threads, and caches nothing.
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
                    raise RuntimeError("the function that builds %r asks for it itself" % (key,))
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
                raise  # a child that `build` has forked: the waiting threads and their locks are its parent's
            with self._lock:
                self._counts["failures"] += 1
                self._ended(key, future, begun)
            future.set_exception(e)
            raise
        if forks != self._forks:
            return value
        with self._lock:
            # Not if it was dropped meanwhile: it may be built from outdated data.
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
            return  # it would evict all others and still not fit
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
                sys.stderr.write("mod_drover.cache: %r could not be rebuilt, the old object stays in use:\n%s" % (key, traceback.format_exc()))
                self._retry_later(key)

        try:
            threading.Thread(target=run, name="mod_drover.cache", daemon=True).start()
        except RuntimeError as e:
            # The system refuses a thread.
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
        """Removes an object; returns whether it existed. An object being built now is not cached either."""
        with self._lock:
            self._building.pop(key, None)
            return self._take(key)

    def clear(self):
        """Removes all objects."""
        with self._lock:
            self._building.clear()
            self._entries.clear()
            self._size = 0

    def set_limit(self, limit):
        """Sets the bound of the sum of sizes, and evicts what exceeds it."""
        with self._lock:
            self._limit = limit
            self._shrink()

    def stats(self):
        """Statistics of this process: entries, size, limit, hits, stale, misses, builds, failures, evictions, build_seconds."""
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

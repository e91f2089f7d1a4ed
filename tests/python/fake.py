"""A store as httpd shows it to the worker's calls, without httpd: what `_drover.SessionCalls` promises, in a dictionary."""
from mod_drover import session


class Store:
    """Everything that outlives a request."""

    def __init__(self, serializer=0, timeout=1800, max_size=1 << 20):
        self.records, self.locks = {}, {}
        self.serializer, self.timeout, self.max_size = serializer, timeout, max_size
        self.made = 0
        self.down = None

    def request(self, cookie=None):
        return Calls(self, cookie)


class Calls:
    """One request with its cookie. `asked` lists the names of the calls."""

    def __init__(self, store, cookie):
        self.store, self.cookie = store, cookie
        self.set_cookie = None
        self.asked = []
        self.held = set()
        self.with_head = None

    def _ask(self, what):
        self.asked.append(what)
        if self.store.down is not None:
            raise self.store.down

    def _take(self, key):
        if key not in self.held:
            if self.store.locks.setdefault(key, self) is not self:
                raise session.LockTimeout("another request holds the session")
            self.held.add(key)

    def _free(self, key):
        if key in self.held:
            self.held.discard(key)
            del self.store.locks[key]

    def open(self, key, lock):
        self._ask("open" if lock else "read")
        key = key or self.cookie
        record = self.store.records.get(key)
        if key is not None and record is not None and lock:
            self._take(key)
        key = key if record is not None else None
        return key, record, self.store.timeout, self.store.serializer, self.store.max_size, "fake"

    def save(self, key, data, put, timeout, created, cookie, replaces, keep_lock):
        self._ask("save")
        return self._save(key, data, put, timeout, created, cookie, replaces, keep_lock)

    def _save(self, key, data, put, timeout, created, cookie, replaces, keep_lock):
        there = key in self.store.records
        if put == session.CREATE and there:
            raise session.SessionExists("exists")
        if put == session.REPLACE and not there:
            raise session.SessionMissing("missing")
        if key is None:
            self.store.made += 1
            key = "id%d" % self.store.made
            self._take(key)
        if replaces is not None:
            self._free(replaces)
            del self.store.records[replaces]
        self.store.records[key] = (created, created, timeout or self.store.timeout, data)
        if cookie:
            self.set_cookie = key
        if not keep_lock:
            self._free(key)
        return key

    def save_with_head(self, key, data, put, timeout, created, cookie):
        self.asked.append("save_with_head")
        self.with_head = (key, data, put, timeout, created, cookie, None, True)

    def remove(self, key, cookie):
        self._ask("remove")
        if cookie:
            self.set_cookie = ""
        self._free(key)
        return self.store.records.pop(key, None) is not None

    def exists(self, key):
        self._ask("exists")
        return key in self.store.records

    def lock(self, key):
        self._ask("lock")
        self._take(key)

    def unlock(self, key):
        self._ask("unlock")
        self._free(key)

    def head(self, session):
        """The worker sends the head of a whole answer: what was put before it is carried out."""
        if session._is_open():
            session._before_head(True)
        if self.with_head is not None:
            self._save(*self.with_head)
            self.with_head = None

    def end(self):
        """The request is over."""
        for key in list(self.held):
            self._free(key)

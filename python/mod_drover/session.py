"""Sessions that httpd keeps: `environ["mod_drover.session"]`.

    def application(environ, start_response):
        session = environ["mod_drover.session"]
        session["visits"] = session.get("visits", 0) + 1
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"visit %d\\n" % session["visits"]]

httpd manages the cookie, the store, the locks and the expiry (the directives DroverSession…), as
docs/sessions.md describes. Nothing is read, locked or sent before the first use of the session. From
then on it is locked until the request ends, and changes are saved before the response headers are
sent. If the application raises, nothing is saved.
"""
from collections.abc import MutableMapping
import json
import sys
import time

__all__ = [
    "LockTimeout",
    "NotSerializable",
    "Session",
    "SessionError",
    "SessionExists",
    "SessionMissing",
    "SessionsOff",
    "StoreUnavailable",
    "TooLarge",
    "current",
]


class SessionError(Exception):
    """The base class of this module's exceptions."""


class LockTimeout(SessionError):
    """Another request holds the session for longer than DroverSessionLockTimeout.

    Unless handled, the client gets 503.
    """


class StoreUnavailable(SessionError):
    """The store is not available, damaged or full. Unless handled, the client gets 503."""


class TooLarge(SessionError):
    """The session's data exceed DroverSessionMaxSize."""


class NotSerializable(SessionError, TypeError):
    """A value cannot be stored. The message names its key, and `key` holds it."""

    key = None


class SessionExists(SessionError):
    """A session cannot be created because its key is taken."""


class SessionMissing(SessionError):
    """A session cannot be replaced because it has expired or was removed."""


class SessionsOff(SessionError):
    """DroverSession is off for this request."""


CREATE, REPLACE, ANY = 0, 1, 2

# Immutable types.
_PLAIN = frozenset([str, int, float, bool, bytes, complex, type(None)])


# Without a table of what is being encoded: a value that contains itself is a RecursionError.
_encode_json = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode
_decode_json = json.JSONDecoder().decode
_decode_first_json = json.JSONDecoder().raw_decode


class _Json:
    """JSON, the default. Tuples come back as lists."""

    @staticmethod
    def dumps(data):
        return _encode_json(data).encode("utf-8", "surrogatepass")

    @staticmethod
    def loads(data):
        text = data.decode("utf-8", "surrogatepass")
        value, end = _decode_first_json(text)  # faster: accepts no space around it, which `dumps` does not make
        return value if end == len(text) else _decode_json(text)


def _pickle():
    import pickle

    class Pickle:
        @staticmethod
        def dumps(data):
            return pickle.dumps(data, 4)  # the newest protocol that every supported Python reads quickly

        loads = staticmethod(pickle.loads)

    return Pickle


def _msgpack():
    try:
        import msgpack
    except ImportError as e:
        raise SessionError("DroverSessionSerializer is msgpack, but the package msgpack is not installed here") from e

    class Msgpack:
        @staticmethod
        def dumps(data):
            return msgpack.packb(data, use_bin_type=True)

        @staticmethod
        def loads(data):
            return msgpack.unpackb(data, raw=False, strict_map_key=False)

    return Msgpack


_serializers = {0: _Json}
_makers = {1: _pickle, 2: _msgpack}


def _serializer(number):
    found = _serializers.get(number)
    if found is None:
        if number not in _makers:
            raise SessionError("unknown serializer %d: mod_drover and its Python package have different versions" % number)
        found = _serializers[number] = _makers[number]()
    return found


def _dumps(serializer, data):
    """Serializes the data. If that fails, raises an exception that names the offending value.

    The exception has no serializer's frames: they are the same for each value.
    """
    try:
        return serializer.dumps(data)
    except Exception as e:
        error = NotSerializable("the session cannot be stored: %s: %s" % (type(e).__name__, e))
    for key, value in data.items():
        try:
            serializer.dumps({key: value})
        except Exception as e:
            error = NotSerializable("the session's value under %r cannot be stored: %s: %s" % (key, type(e).__name__, e))
            error.key = key
            break
    raise error


class _State:
    """The state of a session that is open."""

    __slots__ = (
        "data", "loaded", "id", "is_new", "created_ms", "accessed_ms", "timeout", "default_timeout", "max_size", "serializer",
        "engine", "locked", "changed", "handed_out",
    )


class Session(MutableMapping):
    """The session of one request: a mapping of names to values, in the environ of the request as `mod_drover.session`.

    Keys are strings. Values are those that the serializer supports: JSON's types by default, or those
    of pickle or msgpack (DroverSessionSerializer). A value that is changed in place
    (`session["cart"].append(...)`) is noticed.

    The object is valid until its request ends. Other threads of the same request may use it.
    """

    __slots__ = ("_calls", "_state", "_autosave", "_read_only", "_own")

    def __init__(self, calls):
        self._calls = calls
        self._state = None  # until the first use: an unused session costs only this object
        self._autosave = True
        self._read_only = False
        self._own = None

    def _opened(self):
        return self._state or self._touch()

    def _touch(self):
        """Opens the session and returns its state."""
        state = self._load(not self._read_only)
        if self._state is None:  # else another thread of the request has opened it
            self._state = state
        return self._state

    def __repr__(self):
        if not self._is_open():
            return "<mod_drover session, not open>"
        state = self._state
        return "<mod_drover session, %s, keys %r>" % ("new" if state.is_new else "stored", list(state.data))

    def _load(self, lock):
        key, record, default, serializer, max_size, engine = self._calls.open(None, lock)
        state = _State()
        state.serializer = self._own or _serializer(serializer)
        state.engine = engine
        state.max_size = max_size
        state.default_timeout = default
        state.changed = state.handed_out = False
        if record is not None and key is not None:
            state.created_ms, state.accessed_ms, state.timeout, stored = record
            data = self._read(state.serializer, stored)
            if data is not None:
                state.id, state.is_new, state.locked, state.loaded, state.data = key, False, lock, stored, data
                return state
        state.id, state.is_new, state.locked, state.loaded, state.data = None, True, False, b"", {}
        state.created_ms = state.accessed_ms = int(time.time() * 1000)
        state.timeout = 0
        return state

    @staticmethod
    def _read(serializer, stored):
        """Decodes the stored data. Returns None if that fails: then the client gets a new session.

    This happens, for example, after DroverSessionSerializer was changed.
    """
        try:
            data = serializer.loads(stored)
            if type(data) is dict:
                return data
            why = "not a mapping"
        except Exception as e:
            why = "%s: %s" % (type(e).__name__, e)
        sys.stderr.write("mod_drover: a stored session cannot be decoded, starting a new one: %s\n" % why)
        return None

    # The mapping.

    def _change(self):
        if self._read_only:
            raise SessionError("the session was taken with read_only() and cannot be changed")
        state = self._opened()
        state.changed = True
        return state

    def __getitem__(self, key):
        state = self._opened()
        value = state.data[key]
        if type(value) not in _PLAIN:
            state.handed_out = True
        return value

    def get(self, key, default=None):
        """The value under a key, or `default`."""
        state = self._opened()
        value = state.data.get(key, default)
        if type(value) not in _PLAIN:
            state.handed_out = True
        return value

    def __contains__(self, key):
        return key in self._opened().data

    def __setitem__(self, key, value):
        if not isinstance(key, str):
            raise TypeError("a session's keys are str, not %s" % type(key).__name__)
        state = self._change()
        if type(value) not in _PLAIN:
            state.handed_out = True
        state.data[key] = value

    def __delitem__(self, key):
        if key not in self._opened().data:
            raise KeyError(key)
        del self._change().data[key]

    def __iter__(self):
        return iter(self._opened().data)

    def __len__(self):
        return len(self._opened().data)

    def clear(self):
        """Removes every value. The session itself stays; `invalidate()` removes it."""
        if self._opened().data:
            self._change().data.clear()

    def copy(self):
        """The values as a new dict."""
        state = self._opened()
        state.handed_out = True
        return dict(state.data)

    # Attributes.

    @property
    def id(self):
        """The session's identifier, as in the client's cookie. None until a new session is saved."""
        return self._opened().id

    @property
    def is_new(self):
        """True if nothing is stored yet.

        The client sent no cookie, or its session is unknown or has expired.
        """
        return self._opened().is_new

    @property
    def created(self):
        """The time of creation, in seconds since 1970."""
        return self._opened().created_ms / 1000

    @property
    def last_accessed(self):
        """The time of the last use before this request, in seconds since 1970.

        httpd saves it only when it has advanced enough.
        """
        return self._opened().accessed_ms / 1000

    @property
    def timeout(self):
        """Seconds without a request after which the session expires.

        New sessions get DroverSessionTimeout. Assigning changes this session only.
        """
        state = self._opened()
        return state.timeout or state.default_timeout

    @timeout.setter
    def timeout(self, seconds):
        seconds = int(seconds)
        if not 1 <= seconds <= 0xFFFFFFFF:
            raise ValueError("a session's timeout must be at least one second and less than 2**32")
        if seconds != self.timeout:
            self._change().timeout = seconds

    @property
    def engine(self):
        """The session engine: the one of DroverSession, or the one that httpd has chosen."""
        return self._opened().engine

    @property
    def autosave(self):
        """True (the default) if changes are saved when the request ends. `save()` works in any case."""
        return self._autosave

    @autosave.setter
    def autosave(self, on):
        self._autosave = bool(on)

    @property
    def serializer(self):
        """The application's own serializer, or None for the one of DroverSessionSerializer.

        An object with `dumps(dict) -> bytes` and `loads(bytes) -> dict`. Set it before the first use of
        the session.
        """
        return self._own

    @serializer.setter
    def serializer(self, own):
        if self._is_open():
            raise SessionError("the serializer must be set before the first use of the session")
        self._own = own

    def _is_open(self):
        return self._state is not None

    # Operations.

    def save(self):
        """Saves now, even if nothing has changed, and waits until it is saved. Keeps the lock."""
        if self._read_only:
            raise SessionError("the session was taken with read_only() and cannot be changed")
        self._save(self._opened(), True)

    def invalidate(self):
        """Removes the session and the client's cookie. Values assigned later make a new session."""
        if self._read_only:
            raise SessionError("the session was taken with read_only() and cannot be changed")
        state = self._opened()
        if not state.is_new:
            self._calls.remove(state.id, True)
        state.data = {}
        state.id, state.is_new, state.locked, state.loaded = None, True, False, b""
        state.changed = state.handed_out = False
        state.timeout = 0
        state.created_ms = state.accessed_ms = int(time.time() * 1000)

    delete = invalidate

    def regenerate(self):
        """Moves the data to a new id and removes the old session. Call it after a login."""
        state = self._change()
        if state.is_new:
            return  # it gets a new id anyway
        data = self._bytes(state)
        state.id = self._calls.save(None, data, CREATE, state.timeout, state.created_ms, True, state.id, True)
        state.locked = True
        self._saved(state, data)

    def lock(self):
        """Takes the lock again after `unlock()` or `read_only()`, and reads the stored data again.

        Does nothing if the lock is held. Changes made without the lock are lost: make them afterwards.
        """
        if not self._is_open():
            self._read_only = False
            self._state = self._load(True)
        elif not self._state.locked:
            self._read_only = False
            if not self._state.is_new:
                self._state = self._load(True)

    def unlock(self):
        """Releases the lock before the request ends, so that the client's next request need not wait.

        Changes are saved first.
        """
        if not self._is_open():
            return
        state = self._state
        if self._autosave and self._is_changed(state):
            self._save(state, False)
        elif state.locked:
            self._calls.unlock(state.id)
        state.locked = False

    def read_only(self):
        """The same session without its lock: it waits for no other request, and none waits for it.

        It cannot be changed until `lock()`.

            name = environ["mod_drover.session"].read_only().get("name")
        """
        if self._is_open():
            self.unlock()
        self._read_only = True
        return self

    # Saving.

    def _bytes(self, state):
        data = _dumps(state.serializer, state.data)
        if type(data) is not bytes:
            raise TypeError("the session's serializer must return bytes, not %s" % type(data).__name__)
        if len(data) > state.max_size:
            raise TooLarge("the session's data are %d bytes, DroverSessionMaxSize allows %d" % (len(data), state.max_size))
        return data

    def _is_changed(self, state):
        if state.changed:
            return True
        if not state.handed_out or self._read_only:
            return False
        # A mutable value was handed out: it may have changed in place.
        return _dumps(state.serializer, state.data) != (state.loaded or _dumps(state.serializer, {}))

    def _put(self, state):
        if state.is_new:
            return CREATE
        # Without the lock, another request may have removed it: then it must not be recreated.
        return ANY if state.locked else REPLACE

    def _save(self, state, keep_lock):
        data = self._bytes(state)
        state.id = self._calls.save(state.id, data, self._put(state), state.timeout, state.created_ms, state.is_new, None, keep_lock)
        state.is_new = False
        state.locked = keep_lock
        self._saved(state, data)

    @staticmethod
    def _saved(state, data):
        state.loaded = data
        state.changed = False

    def _before_head(self, last):
        """The worker is about to send the headers. Called only if the session was opened.

        `last`: none of the application's code runs any more.
        """
        state = self._state
        if state is None or not self._autosave or not self._is_changed(state):
            return
        if state.is_new and not last:
            self._save(state, True)  # a later change needs its id
            return
        data = self._bytes(state)
        self._calls.save_with_head(state.id, data, self._put(state), state.timeout, state.created_ms, state.is_new)
        self._saved(state, data)

    def _before_end(self):
        """The response is complete, and its headers were sent earlier."""
        if self._autosave and self._is_open():
            state = self._state
            if self._is_changed(state):
                self._save(state, False)


def current():
    """The session of the request that the calling thread serves: `environ["mod_drover.session"]` of that request.

    Raises SessionsOff when DroverSession is off, SessionError when the thread serves no request.
    """
    import _drover

    return _drover.current_session()

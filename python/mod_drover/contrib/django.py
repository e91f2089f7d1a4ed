"""httpd's sessions as Django's `request.session`.

    # settings.py
    SESSION_ENGINE = "mod_drover.contrib.django"

The cookie, the session keys and the serializer stay Django's (SESSION_COOKIE_…, SESSION_SERIALIZER); httpd stores what Django saves.
`clearsessions` has nothing to do: httpd removes what has expired.

    DROVER_SESSION_LOCK = True

As with Django's own engines, two requests of one client may run at once, and the one that saves last wins. With this setting a session that
was read is locked until its request ends.

    MIDDLEWARE = ["mod_drover.contrib.django.UnavailableMiddleware", …]

answers with 503 instead of 500 when a view could not have its session: locked for too long, or the store out of reach.
"""
import logging
from datetime import datetime

from django.conf import settings
from django.contrib.sessions.backends.base import VALID_KEY_CHARS, CreateError, SessionBase, UpdateError
from django.http import HttpResponse
from django.utils import timezone
from django.utils.crypto import get_random_string

from mod_drover import session as drover

__all__ = ["SessionStore", "UnavailableMiddleware"]

_ALLOWED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
_LONGEST = 128


def _is_key(key):
    return bool(key) and len(key) <= _LONGEST and _ALLOWED.issuperset(key)


class SessionStore(SessionBase):
    """Django's session of one request."""

    def __init__(self, session_key=None):
        super().__init__(session_key)
        # Django's asynchronous calls run in other threads than the request's.
        self._known = None
        try:
            self._known = drover.current()._calls
        except (drover.SessionError, ImportError):
            pass  # said when something is asked of it

    @property
    def _calls(self):
        return self._known or drover.current()._calls

    def _get_new_session_key(self):
        return get_random_string(32, VALID_KEY_CHARS)  # whether it is taken, httpd says when it is created

    async def _aget_new_session_key(self):
        return self._get_new_session_key()

    def exists(self, session_key):
        return _is_key(session_key) and self._calls.exists(session_key)

    def create(self):
        while True:
            self._session_key = self._get_new_session_key()
            try:
                self.save(must_create=True)
            except CreateError:
                continue
            self.modified = True
            return

    def save(self, must_create=False):
        if self.session_key is None:
            return self.create()
        data = self.serializer().dumps(self._get_session(no_load=must_create))
        age = int(self.get_expiry_age())
        try:
            self._calls.save(
                self.session_key, data, drover.CREATE if must_create else drover.REPLACE, max(age, 1), 0, False, None, True
            )
        except drover.SessionExists:
            raise CreateError from None
        except drover.SessionMissing:
            raise UpdateError from None
        if age <= 0:
            self._calls.remove(self.session_key, False)  # it has expired when it is saved

    def delete(self, session_key=None):
        key = self.session_key if session_key is None else session_key
        if _is_key(key):
            self._calls.remove(key, False)

    def load(self):
        key = self.session_key
        if _is_key(key):
            lock = getattr(settings, "DROVER_SESSION_LOCK", False)
            record = self._calls.open(key, lock)[1]
            if record is not None:
                data = self._loads(record[3])
                if not self._is_over(data):
                    return data
                self._calls.remove(key, False)
        self._session_key = None
        return {}

    def _loads(self, stored):
        try:
            return self.serializer().loads(stored)
        except Exception:
            # As after SESSION_SERIALIZER was changed; Django's own engines begin anew as well.
            logging.getLogger("django.contrib.sessions").warning("Session data corrupted")
            return {}

    def _is_over(self, data):
        """Whether `set_expiry` was given a moment that is over. What is given in seconds httpd counts."""
        expiry = data.get("_session_expiry")
        return isinstance(expiry, (str, datetime)) and self.get_expiry_age(modification=timezone.now(), expiry=expiry) <= 0

    @classmethod
    def clear_expired(cls):
        """httpd removes what has expired."""

    @classmethod
    async def aclear_expired(cls):
        """httpd removes what has expired."""


class UnavailableMiddleware:
    """Answers with 503 when a view did not handle that its session cannot be had."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        return self.get_response(request)

    def process_exception(self, request, exception):
        if not isinstance(exception, (drover.LockTimeout, drover.StoreUnavailable)):
            return None
        logging.getLogger("django.request").error("%s: %s", request.path, exception)
        return HttpResponse("The session is not available.\n", status=503, content_type="text/plain", headers={"Retry-After": "5"})

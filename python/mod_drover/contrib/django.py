"""Keeps Django's `request.session` in httpd.

    # settings.py
    SESSION_ENGINE = "mod_drover.contrib.django"

Django still sets the cookie, the session keys and the serializer (SESSION_COOKIE_…,
SESSION_SERIALIZER); httpd stores what Django saves. `clearsessions` has no effect: httpd removes
expired sessions.

    DROVER_SESSION_LOCK = True

As with Django's own engines, two requests of one client may run at once, and the one that saves
last wins. With this setting, reading a session locks it until the request ends.

    MIDDLEWARE = ["mod_drover.contrib.django.UnavailableMiddleware", …]

responds with 503 instead of 500 if the session is not available to a view: it was locked for too
long, or the store was not available.
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
            pass  # the first use raises it

    @property
    def _calls(self):
        return self._known or drover.current()._calls

    def _get_new_session_key(self):
        return get_random_string(32, VALID_KEY_CHARS)  # httpd refuses a key that is taken

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
            self._calls.remove(self.session_key, False)  # it expires at once

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
            # For example, SESSION_SERIALIZER was changed. Django's own engines start a new session,
            # too.
            logging.getLogger("django.contrib.sessions").warning("Session data corrupted")
            return {}

    def _is_over(self, data):
        """True if `set_expiry` was given a time that has passed.

        httpd handles an expiry in seconds.
        """
        expiry = data.get("_session_expiry")
        return isinstance(expiry, (str, datetime)) and self.get_expiry_age(modification=timezone.now(), expiry=expiry) <= 0

    @classmethod
    def clear_expired(cls):
        """Does nothing: httpd removes expired sessions."""

    @classmethod
    async def aclear_expired(cls):
        """Does nothing: httpd removes expired sessions."""


class UnavailableMiddleware:
    """Responds with 503 if a view does not handle that its session is not available."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        return self.get_response(request)

    def process_exception(self, request, exception):
        if not isinstance(exception, (drover.LockTimeout, drover.StoreUnavailable)):
            return None
        logging.getLogger("django.request").error("%s: %s", request.path, exception)
        return HttpResponse("The session is not available.\n", status=503, content_type="text/plain", headers={"Retry-After": "5"})

"""Keeps Flask's `session` in httpd.

    from flask import Flask
    from mod_drover.contrib.flask import SessionInterface

    app = Flask(__name__)
    app.session_interface = SessionInterface()

httpd sets the cookie (DroverSessionCookie): Flask's settings SESSION_COOKIE_… have no effect, and
SECRET_KEY is not needed. `session.permanent = True` sets the session's timeout to
PERMANENT_SESSION_LIFETIME instead of DroverSessionTimeout. Without httpd, as under `flask run` and
in tests, Flask's own signed cookies are used.
"""
from flask.sessions import SecureCookieSessionInterface, SessionMixin
from werkzeug.exceptions import ServiceUnavailable

from mod_drover.session import LockTimeout, StoreUnavailable

__all__ = ["DroverSession", "SessionBusy", "SessionInterface", "SessionUnavailable"]

OURS = "mod_drover.session"
RETRY_AFTER = 5


class SessionBusy(ServiceUnavailable, LockTimeout):
    """Another request holds the session's lock. Unless handled, Flask responds with 503."""


class SessionUnavailable(ServiceUnavailable, StoreUnavailable):
    """The store is not available. Unless handled, Flask responds with 503."""


class DroverSession(SessionMixin):
    """Flask's `session`, kept by httpd.

    `drover` is `environ["mod_drover.session"]`, with `id`, `regenerate()`, `invalidate()`, …
    """

    def __init__(self, drover):
        self.drover = drover
        self.accessed = False

    def _touched(self):
        """The opened session. Flask turns these exceptions into a response."""
        self.accessed = True
        try:
            self.drover.is_new
        except LockTimeout as e:
            raise SessionBusy(str(e), retry_after=RETRY_AFTER) from e
        except StoreUnavailable as e:
            raise SessionUnavailable(str(e), retry_after=RETRY_AFTER) from e
        return self.drover

    def __getitem__(self, key):
        return self._touched()[key]

    def __setitem__(self, key, value):
        self._touched()[key] = value

    def __delitem__(self, key):
        del self._touched()[key]

    def __iter__(self):
        return iter(self._touched())

    def __len__(self):
        return len(self._touched())

    def __contains__(self, key):
        return key in self._touched()

    def get(self, key, default=None):
        return self._touched().get(key, default)

    def clear(self):
        self._touched().clear()

    def copy(self):
        """The values as a new dict."""
        return self._touched().copy()

    def __repr__(self):
        return repr(self.drover)

    @property
    def new(self):
        """True if nothing is stored yet."""
        return self._touched().is_new

    @property
    def modified(self):
        """True if a value was assigned or deleted.

        Values that are changed in place are noticed without it.
        """
        return self.drover._is_open() and self.drover._state.changed

    @modified.setter
    def modified(self, on):
        if on:
            self._touched()._change()


class SessionInterface(SecureCookieSessionInterface):
    """Assign an instance to `app.session_interface`."""

    def open_session(self, app, request):
        drover = request.environ.get(OURS)
        return super().open_session(app, request) if drover is None else DroverSession(drover)

    def save_session(self, app, session, response):
        if not isinstance(session, DroverSession):
            super().save_session(app, session, response)
            return
        if session.accessed:
            response.vary.add("Cookie")
        if not session.drover._is_open():
            return
        # The worker saves it when it sends the headers.
        if session.permanent:
            session.drover.timeout = app.permanent_session_lifetime.total_seconds()

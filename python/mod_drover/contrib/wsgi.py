"""Puts httpd's sessions where a framework or an older middleware keeps its own.

    from mod_drover.contrib.wsgi import SessionMiddleware

    application = SessionMiddleware(application)                                    # as beaker.session
    application = SessionMiddleware(application, environ_key="my.framework.session")
"""
from mod_drover.session import SessionsOff

__all__ = ["SessionMiddleware"]

OURS = "mod_drover.session"


class SessionMiddleware:
    """Puts the session of each request into its environ under another name.

    It is the object `environ["mod_drover.session"]`: a mapping with `id`, `save()`, `delete()`,
    `invalidate()` and others, as applications use them of Beaker's session. It saves itself;
    calling `save()` as well does no harm.
    """

    def __init__(self, app, environ_key="beaker.session"):
        self.app = app
        self.environ_key = environ_key

    def __call__(self, environ, start_response):
        session = environ.get(OURS)
        if session is None:
            raise SessionsOff("the environ has no %s: DroverSession is off, or the server is not httpd with mod_drover" % OURS)
        environ[self.environ_key] = session
        return self.app(environ, start_response)

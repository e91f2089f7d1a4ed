"""httpd's sessions where a framework or an older middleware keeps its own.

    from mod_drover.contrib.wsgi import SessionMiddleware

    application = SessionMiddleware(application)                                    # as beaker.session
    application = SessionMiddleware(application, environ_key="my.framework.session")
"""
from mod_drover.session import SessionsOff

__all__ = ["SessionMiddleware"]

OURS = "mod_drover.session"


class SessionMiddleware:
    """Puts the session of each request into its environ under another name.

    What is found there is `environ["mod_drover.session"]` itself: a mapping with `id`, `save()`, `delete()`, `invalidate()` and the
    others, which is what applications use of Beaker's session. It saves itself; `save()` does no harm.
    """

    def __init__(self, app, environ_key="beaker.session"):
        self.app = app
        self.environ_key = environ_key

    def __call__(self, environ, start_response):
        session = environ.get(OURS)
        if session is None:
            raise SessionsOff("there is no %s in the environ: DroverSession is off, or this is not httpd with mod_drover" % OURS)
        environ[self.environ_key] = session
        return self.app(environ, start_response)

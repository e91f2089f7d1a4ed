"""What an application does that was written for Beaker's middleware."""
from mod_drover.contrib.wsgi import SessionMiddleware


def app(environ, start_response):
    session = environ["beaker.session"]
    if environ["PATH_INFO"] == "/logout":
        session.delete()
    else:
        session["n"] = session.get("n", 0) + 1
        session.save()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(session.get("n")).encode()]


application = SessionMiddleware(app)

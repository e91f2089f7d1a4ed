"""Django with one of its own session engines, named by the file that imports this: the same paths as session_drover.wsgi."""
import os
import tempfile

import django
from django.conf import settings
from django.http import HttpResponse
from django.urls import path

STORE = os.path.join(tempfile.gettempdir(), "drover-lab-django-%d" % os.getuid())


def hello(request):
    return HttpResponse(b"Hello\n")


def read(request):
    request.session.get("n")
    return hello(request)


def write(request):
    request.session["n"] = request.session.get("n", 0) + 1
    return hello(request)


def new(request):
    request.session.update({"n": 1, "user": "somebody", "text": "x" * 200})
    return hello(request)


urlpatterns = [path(view.__name__, view) for view in (hello, read, write, new)]


def make(engine):
    os.makedirs(STORE, exist_ok=True)
    settings.configure(
        ROOT_URLCONF=__name__, SECRET_KEY="of a bench", ALLOWED_HOSTS=["*"], LOGGING={"version": 1, "disable_existing_loggers": False, "handlers": {"e": {"class": "logging.StreamHandler"}}, "root": {"handlers": ["e"]}}, SESSION_ENGINE=engine, SESSION_FILE_PATH=STORE,
        MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"], INSTALLED_APPS=["django.contrib.sessions"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": STORE + "/db.sqlite3", "OPTIONS": {"timeout": 30}}},
    )
    django.setup()
    if engine.endswith(".db"):
        from django.core.management import call_command
        call_command("migrate", run_syncdb=True, verbosity=0)
    from django.core.wsgi import get_wsgi_application
    return get_wsgi_application()

"""A Django site of one file, its sessions kept by httpd."""
from django.conf import settings

settings.configure(
    SECRET_KEY="not secret",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["mod_drover.contrib.django.UnavailableMiddleware", "django.contrib.sessions.middleware.SessionMiddleware"],
    SESSION_ENGINE="mod_drover.contrib.django",
    DROVER_SESSION_LOCK=True,
)

from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import HttpResponse, JsonResponse  # noqa: E402
from django.urls import path  # noqa: E402


def count(request):
    request.session["n"] = request.session.get("n", 0) + 1
    return HttpResponse(str(request.session["n"]))


def cart(request):
    cart = request.session.setdefault("cart", [])
    cart.append(request.GET["add"])
    request.session.modified = True
    return JsonResponse({"cart": cart})


def login(request):
    request.session["user"] = request.GET["name"]
    request.session.cycle_key()
    return HttpResponse("hello")


def logout(request):
    request.session.flush()
    return HttpResponse("bye")


def who(request):
    return JsonResponse({"user": request.session.get("user"), "ours": "mod_drover.session" in request.environ})


urlpatterns = [path("count", count), path("cart", cart), path("login", login), path("logout", logout), path("who", who)]
application = get_wsgi_application()

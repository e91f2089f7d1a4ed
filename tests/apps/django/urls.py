"""The project's URLs: the admin, an upload and a stream."""
from django.contrib import admin
from django.http import JsonResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt


@csrf_exempt
def upload(request):
    size = total = 0
    for chunk in request.FILES["file"].chunks():
        size += len(chunk)
        total += sum(chunk)
    return JsonResponse({"size": size, "sum": total})


def stream(request):
    return StreamingHttpResponse((f"line {i}\n" for i in range(5000)), content_type="text/plain")


urlpatterns = [path("admin/", admin.site.urls), path("upload/", upload), path("stream/", stream)]

"""Which socket path goes to which consumer. No logic."""

from django.urls import re_path

from auditweb.dumps.consumers import StreamConsumer
from sessions_app.consumers import TimelineConsumer, WallConsumer
from status_app.consumers import StatusConsumer

urlpatterns = [
    re_path(r"^ws/streams/(?P<name>[^/]+)/$", StreamConsumer.as_asgi()),
    re_path(r"^ws/sessions/(?P<public_id>[0-9A-Za-z]{22})/$", TimelineConsumer.as_asgi()),
    re_path(r"^ws/live/$", WallConsumer.as_asgi()),
    re_path(r"^ws/status/(?P<public_id>[^/]+)/$", StatusConsumer.as_asgi()),
]

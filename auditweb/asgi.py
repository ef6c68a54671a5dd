"""Which path goes to which protocol. No logic."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "auditweb.settings")

from django.core.asgi import get_asgi_application

http = get_asgi_application()  # before anything that imports models

from channels.routing import ProtocolTypeRouter  # noqa: E402

from auditweb.lane import Lane  # noqa: E402
from auditweb.sockets import websocket  # noqa: E402

application = ProtocolTypeRouter({"http": Lane(http), "websocket": websocket})

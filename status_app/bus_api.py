"""One status log over HTTP: what it is, and posting to it."""

import time

from asgiref.sync import async_to_sync
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema, extend_schema_view
from rest_framework import serializers

from auditweb import metrics
from auditweb.api import TEAM, Error, Text, body, json_answer, parameters
from auditweb.dumps.stream_api import BODY_BYTES, refusals
from auditweb.errors import ApiError
from auditweb.live.hub import hub
from auditweb.pages import MAX_INT
from auditweb.teams import access
from status_app import posts
from status_app.api import BusDetail, BusView, bus_called, bus_json
from status_app.models import StatusBus

WAIT_SECONDS = 1  # most that a post waits for slow readers


class Post(serializers.Serializer):
    """What an agent says, in the shape of RoomKit's StatusEntry."""

    ts = Text(required=False, allow_blank=True, help_text="ISO 8601; without it the server stamps the post")
    agent_id = Text(allow_blank=True)
    action = Text(allow_blank=True)
    status = Text(help_text="ok, failed, pending, info, completed, or another word")
    detail = Text(required=False, allow_blank=True)
    metadata = serializers.DictField(required=False)


class Placed(serializers.Serializer):
    seq = serializers.IntegerField()
    ts = serializers.CharField()


class Posted(serializers.Serializer):
    """Where posts are stored."""

    id = serializers.CharField(help_text="of the log")
    url = serializers.CharField(help_text="its page")
    stream = serializers.CharField(help_text="whose lines they are")
    accepted_through = serializers.IntegerField(help_text="number of the last line of that stream")
    duplicates = serializers.IntegerField(help_text="posts of this request that were here before")
    entries = Placed(many=True, help_text="in the order of the body")


@extend_schema_view(
    get=extend_schema(operation_id="status_detail", responses={200: BusDetail, 404: Error}),
    post=extend_schema(
        operation_id="status_post",
        parameters=[
            *parameters(
                producer="whose posts these are: each producer has lines of its own",
                first="int: number of the first post in the body, from 1, among those of the producer",
                wait="bool: answer when those who listen at this server were sent it, with 201",
            ),
            OpenApiParameter(
                "Idempotency-Key",
                OpenApiTypes.STR,
                OpenApiParameter.HEADER,
                description=f"with it a request that comes again within 24 hours stores nothing; not with first; at "
                f"most {posts.KEY_LENGTH} characters",
            ),
            *TEAM,
        ],
        request={"application/json": Post, "application/x-ndjson": OpenApiTypes.BINARY},
        responses={
            202: Posted,
            201: OpenApiResponse(Posted, "those who listen were told"),
            409: OpenApiResponse(
                Error, "`gap`: `expected` is the next number; `differs`: this number or key came with another post"
            ),
            413: OpenApiResponse(Error, "`too_large`"),
        },
    ),
)
class OneBus(BusView):
    def get_permissions(self):
        return [access.MayIngest() if self.request.method == "POST" else access.MayRead()]

    @property
    def throttle_scope(self) -> str | None:
        return "stream" if self.request.method == "POST" else None

    def get(self, request, id):
        """A status log, what was counted in it, and where it came from."""
        bus = self.bus(id)
        ids = {
            name: list(related.order_by("pk").values_list("public_id", flat=True)[:1000])
            for name, related in (("dumps", bus.dumps), ("sessions", bus.sessions))
        }
        return json_answer(bus_json(bus) | ids)

    def post(self, request, id):
        """Post to a status log; one that is missing is made. The body is one post, or up to 1,000 as NDJSON.

        Posts are stored when the answer comes. A lost answer leaves the sender in doubt: with numbers (`producer` and
        `first`) or with an `Idempotency-Key` the same request may be sent again, and nothing is stored twice.
        """
        params = self.params
        key, first = request.headers.get("Idempotency-Key", ""), params.integer("first", None, 1, MAX_INT)
        if key and (first or len(key) > posts.KEY_LENGTH):
            raise ApiError(400, "invalid", f"Idempotency-Key: up to {posts.KEY_LENGTH} characters, and without first.")
        producer, wait = params.text("producer", 100), params.flag("wait")
        bus = bus_called(request, id)
        team = bus.team if bus else access.team_of(request)
        access.require(request, team, "upload")
        data, began = body(request, BODY_BYTES), time.perf_counter()
        name, title = (bus.name, str(bus)) if bus else (id, "")
        with refusals():
            try:
                lines = posts.read(data)
                if first is not None:
                    posted = posts.append_numbered(team, name, producer, first, lines, request.user, title)
                elif key:
                    posted = posts.append_once(team, name, producer, key, data, lines, request.user, title)
                else:
                    posted = posts.append(team, name, producer, lines, request.user, title)
            except posts.BadPost as e:
                raise ApiError(400, "invalid", str(e)) from e
            except posts.KeyUsed as e:
                raise ApiError(409, "differs", "Another body came with this key.", {"key": key}) from e
        metrics.accepted("status", began, len(lines), posted.duplicates)
        bus = bus or StatusBus.objects.get(team=team, name=name)
        if wait and posted.entries:
            async_to_sync(_told)(bus.live_key, posted.entries[-1]["seq"])
        return json_answer(_posted_json(bus, posted), 201 if wait else 202)


async def _told(key: str, seq: int) -> None:
    await hub().told(key, seq, WAIT_SECONDS)


def _posted_json(bus: StatusBus, posted: posts.Posted) -> dict:
    return {
        "id": bus.public_id,
        "url": reverse("status-detail", args=[bus.public_id]),
        "stream": posted.dump.stream,
        "accepted_through": posted.through,
        "duplicates": posted.duplicates,
        "entries": posted.entries,
    }

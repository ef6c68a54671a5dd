"""Streams over HTTP: numbered lines of producers that run."""

import time
from functools import lru_cache
from urllib.parse import parse_qsl

import msgspec
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers

from auditweb import metrics, throttles
from auditweb.api import TEAM, ApiView, Error, Text, body, json_answer, parameters
from auditweb.dumps import store, streams
from auditweb.dumps.models import Dump
from auditweb.errors import ApiError, NotThere
from auditweb.pages import MAX_INT
from auditweb.teams import access, keys

BODY_BYTES = 2**20
MAX_LINES = 1000

_OPTIONS = parameters(
    session="id or key of the session that all lines go to; when the stream is made",
    bus="name of the status log that its posts go to; when the stream is made",
    zone="how times without a zone are read; when the stream is made",
    title="what people see of its name; when the stream is made",
)


class LogOfStream(serializers.Serializer):
    id = serializers.CharField()
    url = serializers.CharField(help_text="its page")


class StreamBody(serializers.Serializer):
    """A stream, and how far it is stored."""

    id = serializers.CharField(help_text="of its dump")
    name = serializers.CharField()
    state = serializers.CharField(help_text="live or done; others while its dump is imported again")
    accepted_through = serializers.IntegerField(help_text="number of the last line that is stored")
    sessions = LogOfStream(many=True)
    status_buses = LogOfStream(many=True)


class Accepted(serializers.Serializer):
    accepted_through = serializers.IntegerField(help_text="number of the last line that is stored")
    duplicates = serializers.IntegerField(help_text="lines of this request that were there before")
    sessions = LogOfStream(many=True)
    status_buses = LogOfStream(many=True)


class Through(serializers.Serializer):
    accepted_through = serializers.IntegerField(help_text="number of the last line that is stored")


class SoFar(serializers.Serializer):
    """An utterance that is not over."""

    role = serializers.ChoiceField(["user", "assistant"])
    text = Text(allow_blank=True, trim_whitespace=False, max_length=20_000)


class _Stream(ApiView):
    permission_classes = [access.MayIngest]
    throttle_scope = "stream"

    def stream(self, request, name: str) -> Dump:
        """The stream *name* of the team that the request is about. Raises NotThere."""
        team = access.team_of(request)
        access.require(request, team, "upload")
        found = streams.find(team, name)
        if found is None:
            raise NotThere
        return found


class OneStream(_Stream):
    """What is stored of a stream: where its producer goes on after a restart."""

    @extend_schema(operation_id="stream", parameters=TEAM, responses=StreamBody)
    def get(self, request, id: str):
        return json_answer(stream_json(self.stream(request, id)))


class Lines(_Stream):
    @extend_schema(
        operation_id="stream_lines",
        parameters=[*parameters(first="int: number of the first line in the body, from 1"), *_OPTIONS, *TEAM],
        request={"application/x-ndjson": OpenApiTypes.BINARY},
        responses={
            200: Accepted,
            409: OpenApiResponse(Error, "`gap`: `expected` is next; `differs`: `line` was another one; `closed`"),
            413: OpenApiResponse(Error, "`too_large`"),
        },
    )
    def post(self, request, id: str):
        """Live lines, numbered from ``first`` on: verbatim entries of any known format, one JSON object a line.

        They are stored when the answer comes. A line that was sent before is skipped. Up to 1,000 lines and 1 MiB.
        """
        team = access.team_of(request)
        access.require(request, team, "upload")
        data, began = body(request, BODY_BYTES), time.perf_counter()
        first = self.params.integer("first", None, 1, MAX_INT)
        if first is None:
            raise ApiError(400, "invalid", "first: the number of the first line is missing.", {"first": ["missing"]})
        lines = split(data)
        if len(lines) > MAX_LINES:
            raise ApiError(413, "too_large", f"One request takes {MAX_LINES:,} lines.", {"limit": MAX_LINES})
        options = {told: self.params.text(told, 200) for told in ("session", "bus", "zone", "title")}
        with refusals():
            taken = streams.append_to(team, id, request.user, first, lines, **options)
            metrics.accepted("http", began, len(lines), taken.duplicates)
            return json_answer(accepted_json(taken))


def usual(name: str, query: str, key: str, data: bytes) -> bytes | None:
    """The answer to a ``POST streams/<name>/lines`` of a producer that is under way, when nothing about it is unusual.

    None: the view shall see to it, and say what is wrong. Whatever was stored here it finds and skips. Raises what
    ``streams.append`` refuses.
    """
    asked = dict(parse_qsl(query))
    first, lines = asked.pop("first", ""), split(data)
    if asked.keys() & {"team"} or not (first.isascii() and first.isdecimal() and 0 < len(first) < 16):
        return None
    began = time.perf_counter()
    sender = keys.sender(key)
    if sender is None or len(lines) > MAX_LINES or len(data) > BODY_BYTES:
        return None
    for kind, amount in (("stream", 1), ("ingest_bytes", len(data))):
        if throttles.exceeded(kind, *sender, amount):
            return None
    taken = streams.append_if_there(sender.team_id, name, int(first), lines)
    if taken is None:
        return None
    metrics.accepted("http", began, len(lines), taken.duplicates)
    return msgspec.json.encode(accepted_json(taken))


class Heartbeat(_Stream):
    @extend_schema(operation_id="stream_heartbeat", parameters=TEAM, request=None, responses=Through)
    def post(self, request, id: str):
        """The producer is there and has nothing to say; after 30 s without any word its session is shown as stale."""
        with refusals():
            return json_answer({"accepted_through": streams.heartbeat(self.stream(request, id))})


class Provisional(_Stream):
    @extend_schema(operation_id="stream_provisional", parameters=TEAM, request=SoFar, responses=Through)
    def post(self, request, id: str):
        """What somebody has said so far. Watchers see it until the line comes that ends it; it is not kept."""
        dump = self.stream(request, id)
        said = SoFar(data=request.data)
        said.is_valid(raise_exception=True)
        streams.provisional(dump, said.validated_data["role"], said.validated_data["text"])
        return json_answer({"accepted_through": dump.lines})


class EndStream(_Stream):
    @extend_schema(operation_id="stream_end", parameters=TEAM, request=None, responses=Through)
    def post(self, request, id: str):
        """The producer is done. Its session has ended when no other stream feeds it; a later line goes on with it."""
        with refusals():
            return json_answer({"accepted_through": streams.end(self.stream(request, id))})


def split(data: bytes) -> list[bytes]:
    """The lines of an NDJSON body; the last one may lack its newline."""
    if not data:
        return []
    return data.removesuffix(b"\n").split(b"\n")


class refusals:
    """Turns what streams refuse into answers."""

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if isinstance(error, streams.Gap):
            raise ApiError(409, "gap", f"{_sentence(error)}.", {"expected": error.expected}) from error
        if isinstance(error, streams.Differs):
            raise ApiError(409, "differs", f"{_sentence(error)}.", {"line": error.line}) from error
        if isinstance(error, streams.Busy):
            raise ApiError(503, "busy", f"{_sentence(error)}.", wait=2) from error
        if isinstance(error, store.TooLarge):
            raise ApiError(413, "too_large", f"{_sentence(error)}.") from error
        if isinstance(error, store.Refused):
            raise ApiError(409, "closed", f"{_sentence(error)}.") from error
        if isinstance(error, ValueError):
            raise ApiError(400, "invalid", f"{_sentence(error)}") from error


def _sentence(error: Exception) -> str:
    text = str(error)
    return text[:1].upper() + text[1:]


def accepted_json(taken: streams.Taken) -> dict:
    """What was taken, as Accepted says."""
    return {"accepted_through": taken.through, "duplicates": taken.duplicates, **_logs(taken.dump)}


def stream_json(dump: Dump) -> dict:
    """A stream as StreamBody says."""
    told = {"id": dump.public_id, "name": dump.stream, "state": dump.state, "accepted_through": dump.lines}
    return told | _logs(dump)


def _logs(dump: Dump) -> dict:
    fed = {name: state.get("logs", ()) for name, state in dump.checkpoint.get("sinks", {}).items()}
    return {
        "sessions": [{"id": one, "url": _url("session-detail", one)} for one in fed.get("sessions", ())],
        "status_buses": [{"id": one, "url": _url("status-detail", one)} for one in fed.get("status", ())],
    }


@lru_cache(1024)  # of every answer to a batch of live lines it would be a tenth
def _url(page: str, public_id: str) -> str:
    return reverse(page, args=[public_id])

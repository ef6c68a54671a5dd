"""Dumps over HTTP: bytes in, by slices or as one file; progress, quarantine and the exact bytes out."""

import base64
import re

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.response import Response

from auditweb import pages
from auditweb.api import (
    PAGING,
    TEAM,
    ApiView,
    Error,
    body,
    found,
    json_answer,
    page_answer,
    page_of,
    parameters,
    stream,
)
from auditweb.dumps import jobs, store
from auditweb.dumps.models import Dump, State
from auditweb.errors import ApiError
from auditweb.formats.clock import zone_of
from auditweb.teams import access, audit
from auditweb.teams.models import ApiKey

RANGE_BYTES = 8 * 2**20  # the most that one Range request gets; clients ask again for the rest
RAW_BYTES = 8 * 2**10  # of a bad line in a list; the whole of it is a range of the original
LOGS = 100  # sessions and status logs named in the JSON of a dump
SORTS = {"created": "id", "name": "name", "size": "size", "lines": "lines", "events": "events"}

Binary = {"application/octet-stream": OpenApiTypes.BINARY}


class LogOfDump(serializers.Serializer):
    id = serializers.CharField()
    title = serializers.CharField()
    url = serializers.CharField()
    events = serializers.IntegerField()


class BusOfDump(serializers.Serializer):
    id = serializers.CharField()
    name = serializers.CharField()
    url = serializers.CharField()
    entries = serializers.IntegerField()


class DumpBody(serializers.Serializer):
    """A dump: what was received, how far its import got, what came out of it."""

    id = serializers.CharField()
    name = serializers.CharField()
    url = serializers.CharField(help_text="its page")
    state = serializers.CharField(help_text=", ".join(State.values))
    error = serializers.CharField(help_text="why it failed, or empty")
    size = serializers.IntegerField(allow_null=True, help_text="bytes, as announced or as received")
    received = serializers.IntegerField(help_text="bytes")
    sha256 = serializers.CharField(help_text="of all bytes; empty until they are here")
    lines = serializers.IntegerField(help_text="physical lines read so far")
    blank_lines = serializers.IntegerField()
    bad_lines = serializers.IntegerField()
    events = serializers.IntegerField()
    records = serializers.DictField(child=serializers.IntegerField(), help_text="lines by format")
    progress = serializers.FloatField(help_text="0 to 1")
    lines_per_s = serializers.FloatField(allow_null=True)
    zone = serializers.CharField(help_text="how times without a zone are read; empty: as UTC")
    zone_source = serializers.CharField(help_text="told, inferred, assumed, or empty")
    naive_lines = serializers.IntegerField(help_text="lines whose time names no zone")
    sessions = LogOfDump(many=True)
    status_buses = BusOfDump(many=True)
    created_at = serializers.DateTimeField()
    created_by = serializers.CharField()
    finished_at = serializers.DateTimeField(allow_null=True)
    attempts = serializers.IntegerField()
    duplicate = serializers.BooleanField(help_text="the same bytes were here before; this is that dump")


class BadLineBody(serializers.Serializer):
    """A line that could not be read."""

    line = serializers.IntegerField()
    offset = serializers.IntegerField(help_text="byte of the dump at which it begins")
    size = serializers.IntegerField(help_text="bytes, with its newline")
    reason = serializers.CharField()
    raw = serializers.CharField(help_text="its text; U+FFFD stands for what is not UTF-8")
    raw_base64 = serializers.CharField(help_text="its exact bytes")
    more = serializers.BooleanField(help_text=f"only the first {RAW_BYTES} bytes are shown")


class Received(serializers.Serializer):
    received = serializers.IntegerField(help_text="bytes that are stored now; the next slice starts here")


class NewDump(serializers.Serializer):
    """What is told about a dump before its bytes come."""

    name = serializers.CharField(max_length=1000, trim_whitespace=False)
    size = serializers.IntegerField(min_value=0, max_value=pages.MAX_INT, required=False, allow_null=True)
    zone = serializers.CharField(max_length=60, required=False, allow_blank=True)
    session = serializers.CharField(max_length=200, required=False, allow_blank=True)
    team = serializers.CharField(max_length=60, required=False, allow_blank=True)

    def validate_zone(self, value: str) -> str:
        return _zone(value)


class Zone(serializers.Serializer):
    zone = serializers.CharField(max_length=60, allow_blank=True, help_text='"Europe/Paris", "+02:00", "": as inferred')

    def validate_zone(self, value: str) -> str:
        return _zone(value)


def _zone(name: str) -> str:
    try:
        zone_of(name)
    except ValueError as e:
        raise serializers.ValidationError(str(e)) from e
    return name


def dump_json(dump: Dump, duplicate: bool = False) -> dict:
    """A dump as DumpBody says."""
    return {
        "id": dump.public_id,
        "name": dump.name,
        "url": reverse("dump-detail", args=[dump.public_id]),
        "state": dump.state,
        "error": dump.error,
        "size": dump.size if dump.declared_size is None else dump.declared_size,
        "received": dump.size,
        "sha256": dump.sha256,
        "lines": dump.lines,
        "blank_lines": dump.blank_lines,
        "bad_lines": dump.bad_line_count,
        "events": dump.events,
        "records": dump.records,
        "progress": round(dump.progress, 4),
        "lines_per_s": dump.lines_per_s and round(dump.lines_per_s, 1),
        "zone": dump.zone,
        "zone_source": dump.zone_source,
        "naive_lines": dump.naive_lines,
        "sessions": [
            {
                "id": session.public_id,
                "title": session.title,
                "url": reverse("session-detail", args=[session.public_id]),
                "events": session.event_count,
            }
            for session in dump.sessions.all()[:LOGS]
        ],
        "status_buses": [
            {
                "id": bus.public_id,
                "name": str(bus),
                "url": reverse("status-detail", args=[bus.public_id]),
                "entries": bus.entry_count,
            }
            for bus in dump.status_buses.all()[:LOGS]
        ],
        "created_at": dump.created_at,
        "created_by": _name(dump),
        "finished_at": dump.finished_at,
        "attempts": dump.attempts,
        "duplicate": duplicate,
    }


def _name(dump: Dump) -> str:
    user = dump.created_by
    if user is None:
        return ""
    if not user.is_service:
        return user.get_username()
    key = ApiKey.objects.filter(user=user).first()
    return f"key {key.name}" if key else "a revoked key"


def dumps_of(request) -> QuerySet[Dump]:
    """The dumps that the caller may see."""
    return Dump.objects.visible_to(request.user).select_related("team", "created_by", "upload")


class MayReadOrFollow(access.MayRead):
    """Also keys that may only send: whoever sends a dump may ask how far it got."""

    def has_permission(self, request, view):
        key = request.auth
        return super().has_permission(request, view) or (isinstance(key, ApiKey) and key.has_scope("ingest"))


class DumpView(ApiView):
    """One or many dumps; reading and changing them need different rights."""

    def get_permissions(self):
        return [MayReadOrFollow()] if self.request.method in ("GET", "HEAD", "OPTIONS") else [access.MayIngest()]

    def dump(self, public_id: str) -> Dump:
        """The dump that the caller may read (GET) or change (any other method). Raises Http404, PermissionDenied."""
        dump = found(dumps_of(self.request), public_id)
        if self.request.method not in ("GET", "HEAD", "OPTIONS"):
            access.require(self.request, dump.team, "upload")
        return dump

    def handle_exception(self, exc):
        return super().handle_exception(_refusal(exc))


def _refusal(exc: Exception) -> Exception:
    if isinstance(exc, store.WrongOffset):
        return ApiError(409, "offset", f"This dump continues at byte {exc.expected:,}.", {"expected": exc.expected})
    if isinstance(exc, store.TooLarge):
        return ApiError(413, "too_large", _sentence(exc), {"limit": settings.MAX_DUMP_BYTES})
    if isinstance(exc, store.Refused):
        return ApiError(409, "state", _sentence(exc))
    return exc


def _sentence(exc: Exception) -> str:
    text = str(exc)
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


_REFUSALS = {
    404: OpenApiResponse(Error, description="missing, or not yours"),
    409: OpenApiResponse(Error, description="not in this state; or `offset`, with the one that is `expected`"),
    413: OpenApiResponse(Error, description="more bytes than the limit, which is named"),
}


@extend_schema_view(
    get=extend_schema(
        operation_id="dumps_list",
        parameters=[
            *PAGING,
            *TEAM,
            *parameters(q="part of the name", state=", ".join(State.values)),
        ],
        responses={200: page_of(DumpBody), 400: Error},
    ),
    post=extend_schema(operation_id="dumps_begin", request=NewDump, responses={201: DumpBody, 400: Error, 413: Error}),
)
class Dumps(DumpView):
    def get(self, request):
        """Dumps, newest first."""
        if not access.MayRead().has_permission(request, self):
            raise access.PermissionDenied("This key may not read.")
        params = self.params
        dumps = Dump.objects.filter(team=access.team_of(request))  # one of the caller's own teams
        if state := params.word("state", State.values):
            dumps = dumps.filter(state=state)
        if q := params.text("q"):
            dumps = dumps.filter(name__icontains=q)
        page = pages.keyset(
            dumps.prefetch_related("created_by", "sessions", "status_buses"),
            params.text("sort") or "-created",
            params.text("cursor"),
            params.limit(),
            SORTS,
        )
        return page_answer(page, [dump_json(dump) for dump in page.items])

    def post(self, request):
        """Begin a dump whose bytes follow in slices. Its id and name are in the answer."""
        told = NewDump(data=request.data)
        told.is_valid(raise_exception=True)
        data = told.validated_data
        team = access.team_of(request, data.get("team"))
        access.require(request, team, "upload")
        with transaction.atomic():
            dump = store.begin(
                team, data["name"], data.get("size"), request.user, data.get("zone", ""), data.get("session", "")
            )
            audit.record(request, "upload", dump, size=data.get("size"))
        return json_answer(dump_json(dump), 201)


@extend_schema_view(
    get=extend_schema(operation_id="dumps_detail", responses={200: DumpBody, 404: Error}),
    put=extend_schema(
        operation_id="dumps_upload",
        parameters=[*TEAM, *parameters(zone="zone of times without one", session="key of the session to add to")],
        request=Binary,
        responses={202: DumpBody, 200: OpenApiResponse(DumpBody, description="the same bytes again"), **_REFUSALS},
    ),
    patch=extend_schema(operation_id="dumps_tell_zone", request=Zone, responses={200: DumpBody, **_REFUSALS}),
    delete=extend_schema(operation_id="dumps_delete", responses={204: None, **_REFUSALS}),
)
class OneDump(DumpView):
    def get(self, request, id):
        """A dump: its progress and what came out of it."""
        dump = self.dump(id)
        audit.viewed(request, dump)
        return json_answer(dump_json(dump))

    def put(self, request, id):
        """A whole file as the body, under its name: ``curl -T session.jsonl …/api/v1/dumps/``."""
        team = access.team_of(request)
        access.require(request, team, "upload")
        params = self.params
        told = NewDump(data={"name": id, "zone": params.text("zone"), "session": params.text("session")})
        told.is_valid(raise_exception=True)
        data = body(request, settings.MAX_SLICE_BYTES)
        with transaction.atomic():
            options = told.validated_data
            dump = store.begin(team, options["name"], len(data), request.user, options["zone"], options["session"])
            store.append_bytes(dump, 0, data)
            audit.record(request, "upload", dump, size=len(data))
            return _finish(dump)

    def patch(self, request, id):
        """Tell the zone of times that name none; the sessions of the dump are placed in time again."""
        dump = self.dump(id)
        told = Zone(data=request.data)
        told.is_valid(raise_exception=True)
        with transaction.atomic():
            jobs.tell_zone(dump, told.validated_data["zone"])
            audit.record(request, "change", dump, zone=told.validated_data["zone"])
        return json_answer(dump_json(self.dump(id)))

    def delete(self, request, id):
        """Remove a dump and all that came from it."""
        dump = self.dump(id)
        with transaction.atomic():
            audit.record(request, "delete", dump, sha256=dump.sha256, lines=dump.lines, events=dump.events)
            jobs.delete(dump)
        return Response(status=204)


def _finish(dump: Dump):
    dump, duplicate = store.finish(dump)
    if not duplicate:
        jobs.wake(dump)
    return json_answer(dump_json(dump, duplicate), 200 if duplicate else 202)


class DumpBytes(DumpView):
    @extend_schema(
        operation_id="dumps_append_bytes",
        parameters=parameters(offset="int: byte of the dump at which this slice begins"),
        request=Binary,
        responses={200: Received, **_REFUSALS},
    )
    def put(self, request, id):
        """The next slice of a dump. Sending one again is harmless; a gap is refused with the offset expected."""
        dump = self.dump(id)
        offset = self.params.integer("offset")
        if offset is None:
            raise pages.BadQuery("offset", "say at which byte this slice begins: offset=0 for the first")
        received = store.append_bytes(dump, offset, body(request, settings.MAX_SLICE_BYTES))
        return json_answer({"received": received})


class FinishDump(DumpView):
    @extend_schema(
        operation_id="dumps_finish",
        request=None,
        responses={202: DumpBody, 200: OpenApiResponse(DumpBody, description="the same bytes again"), **_REFUSALS},
    )
    def post(self, request, id):
        """All bytes were sent: import them."""
        # Not in one transaction: the hash of a large dump takes seconds, and SQLite has one writer.
        return _finish(self.dump(id))


class CancelDump(DumpView):
    @extend_schema(operation_id="dumps_cancel", request=None, responses={200: DumpBody, **_REFUSALS})
    def post(self, request, id):
        """Stop receiving or importing; what was imported stays."""
        dump = self.dump(id)
        with transaction.atomic():
            if not jobs.cancel(dump):
                raise ApiError(409, "state", f"This dump is {dump.state}; there is nothing to cancel.")
            audit.record(request, "cancel", dump)
        return json_answer(dump_json(self.dump(id)))


class RetryDump(DumpView):
    @extend_schema(operation_id="dumps_retry", request=None, responses={202: DumpBody, **_REFUSALS})
    def post(self, request, id):
        """Go on with a dump that failed or was cancelled, from where it stopped."""
        dump = self.dump(id)
        with transaction.atomic():
            if not jobs.retry(dump):
                raise ApiError(409, "state", f"This dump is {dump.state}; it neither failed nor was cancelled.")
            audit.record(request, "retry", dump)
        return json_answer(dump_json(self.dump(id)), 202)


class BadLines(ApiView):
    @extend_schema(
        operation_id="dumps_bad_lines",
        parameters=[p for p in PAGING if p.name != "sort"],
        responses={200: page_of(BadLineBody), 404: Error},
    )
    def get(self, request, id):
        """The lines that could not be read, in file order."""
        dump = found(dumps_of(request), id)
        audit.viewed(request, dump)
        page = pages.keyset(dump.bad_lines, "line", self.params.text("cursor"), self.params.limit(), ["line"])
        items = []
        for bad in page.items:
            exact = store.read(dump, bad.offset, min(bad.size, RAW_BYTES)).removesuffix(b"\n")
            items.append(
                {
                    "line": bad.line,
                    "offset": bad.offset,
                    "size": bad.size,
                    "reason": bad.reason,
                    "raw": exact.decode("utf-8", "replace"),
                    "raw_base64": base64.b64encode(exact).decode(),
                    "more": bad.size > RAW_BYTES,
                }
            )
        return page_answer(page, items, total=dump.bad_line_count)


class Original(ApiView):
    @extend_schema(
        operation_id="dumps_original",
        responses={
            (200, "application/octet-stream"): OpenApiTypes.BINARY,
            (206, "application/octet-stream"): OpenApiTypes.BINARY,
            404: Error,
            416: Error,
        },
    )
    def get(self, request, id):
        """The exact bytes. A ``Range`` of bytes is answered with at most 8 MiB of it; ``Content-Range`` says which."""
        dump = found(dumps_of(request), id)
        tag = f'"{dump.sha256}"' if dump.sha256 else None
        headers = {"Accept-Ranges": "bytes", **({"ETag": tag} if tag else {})}
        if dump.sha256:
            headers["Repr-Digest"] = f"sha-256=:{base64.b64encode(bytes.fromhex(dump.sha256)).decode()}:"
        wanted = _range(request, dump.size, tag)
        first, last = wanted or (0, dump.size - 1)
        headers["Content-Length"] = str(last - first + 1)
        if wanted:
            headers["Content-Range"] = f"bytes {first}-{last}/{dump.size}"
        if first == 0:  # one record for a download, not one for each of its ranges
            with transaction.atomic():
                audit.record(request, "export", dump, form="original")
        pieces = store.pieces(dump, first, last - first + 1)
        return stream(request, pieces, "application/octet-stream", dump.name, 206 if wanted else 200, headers)


_BYTES = re.compile(r"bytes\s*=\s*([0-9]{0,18})\s*-\s*([0-9]{0,18})")


def _range(request, size: int, tag: str | None) -> tuple[int, int] | None:
    """First and last byte of the range asked for; None for all of it. Several ranges count as none."""
    asked = _BYTES.fullmatch(request.META.get("HTTP_RANGE", "").strip())
    if not asked or not (asked[1] or asked[2]) or request.META.get("HTTP_IF_RANGE", tag) != tag:
        return None
    if asked[1]:
        first = int(asked[1])
        last = min(int(asked[2]) if asked[2] else size - 1, size - 1)
        if asked[2] and int(asked[2]) < first:
            return None
    else:
        first, last = max(0, size - int(asked[2])), size - 1
    if first > last:
        raise ApiError(416, "range", f"This dump has {size:,} bytes.", {"size": size})
    return first, min(last, first + RANGE_BYTES - 1)

"""Dumps over HTTP: bytes in, by slices or as one file; progress, quarantine and the exact bytes out."""

import base64
import re
from collections.abc import Callable

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
    Flag,
    Number,
    Text,
    body,
    found,
    json_answer,
    page_answer,
    page_of,
    parameters,
    sorting,
    stream,
)
from auditweb.dumps import jobs, store
from auditweb.dumps.models import Dump, Stamp, State
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


class MemberBody(serializers.Serializer):
    """A file of a zip archive, which is a dump like any other."""

    id = serializers.CharField()
    name = serializers.CharField()
    url = serializers.CharField()
    state = serializers.CharField()
    error = serializers.CharField()
    lines = serializers.IntegerField()
    events = serializers.IntegerField()


class SkippedBody(serializers.Serializer):
    """A file of a zip archive that is no dump."""

    name = serializers.CharField()
    reason = serializers.CharField()


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
    offset_ms = serializers.IntegerField(help_text="added to all times")
    stamp = serializers.CharField(help_text="what the time of a tool call is: start, end, or empty: as written")
    session = serializers.CharField(help_text="key of the session that all lines go to; empty: as the lines say")
    join = serializers.BooleanField(help_text="the producers' session ids mean the same session in other dumps")
    container = serializers.CharField(
        help_text="what the lines were in, outermost first: gzip, zip, array, objects, sequence, cr; empty: nothing"
    )
    unpacked_bytes = serializers.IntegerField(allow_null=True, help_text="size of its lines; null until unpacked")
    waits_for_consent = serializers.BooleanField(help_text="a damaged archive, of which a part can be imported anyway")
    members = MemberBody(many=True, help_text="the dumps that came out of the same zip archive, this one too")
    skipped = SkippedBody(many=True, help_text="files of the zip archive that are no dumps")
    sessions = LogOfDump(many=True)
    status_buses = BusOfDump(many=True)
    created_at = serializers.DateTimeField()
    created_by = serializers.CharField()
    finished_at = serializers.DateTimeField(allow_null=True)
    attempts = serializers.IntegerField()
    duplicate = serializers.BooleanField(help_text="the same bytes were here before; this is that dump")
    grown = serializers.BooleanField(help_text="the bytes just sent continue this dump; only their rest was added")


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

    name = Text(min_length=1, max_length=1000, trim_whitespace=False)
    size = Number(min_value=0, max_value=pages.MAX_INT, required=False, allow_null=True)
    zone = Text(max_length=60, required=False, allow_blank=True)
    session = Text(max_length=200, required=False, allow_blank=True)
    team = Text(max_length=60, required=False, allow_blank=True)
    offset_ms = Number(required=False, default=0)
    stamp = serializers.ChoiceField(Stamp.choices, required=False, allow_blank=True)
    join = Flag(required=False, default=False)

    def validate_zone(self, value: str) -> str:
        return _zone(value)

    def validate_offset_ms(self, value: int) -> int:
        return _offset(value)


class Rules(serializers.Serializer):
    """How the times of a dump are read; what is not named stays as it is."""

    zone = Text(max_length=60, required=False, allow_blank=True, help_text='"Europe/Paris", "+02:00", "": as inferred')
    offset_ms = Number(required=False, help_text="added to all times")
    stamp = serializers.ChoiceField(
        Stamp.choices, required=False, allow_blank=True, help_text="what the time of a tool call is; empty: as written"
    )

    def validate_zone(self, value: str) -> str:
        return _zone(value)

    def validate_offset_ms(self, value: int) -> int:
        return _offset(value)


class Again(Rules):
    """How a dump is imported again; what is not named stays as it is."""

    session = Text(
        max_length=200, required=False, allow_blank=True, help_text="id or key; empty: the sessions that the lines name"
    )
    join = Flag(required=False, help_text="producers' session ids join dumps")


class ReadAgain(serializers.Serializer):
    read = serializers.IntegerField(help_text="lines that left the quarantine")
    left = serializers.IntegerField(help_text="lines that are still in it")


def _zone(name: str) -> str:
    try:
        zone_of(name)
    except ValueError as e:
        raise serializers.ValidationError(str(e)) from e
    return name


def _offset(ms: int) -> int:
    try:
        jobs.check_rules(None, ms, None)
    except ValueError as e:
        raise serializers.ValidationError(str(e)) from e
    return ms


def dump_json(dump: Dump, duplicate: bool = False) -> dict:
    """A dump as DumpBody says."""
    return {
        "id": dump.public_id,
        "name": dump.name,
        "url": reverse("dump-detail", args=[dump.public_id]),
        "state": dump.state,
        "error": dump.error,
        "size": store.received_size(dump) if dump.declared_size is None else dump.declared_size,
        "received": store.received_size(dump),
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
        "offset_ms": dump.offset_ms,
        "stamp": dump.stamp,
        "session": dump.session_key,
        "join": dump.join,
        "container": dump.container,
        "unpacked_bytes": dump.size if dump.unpacked else None,
        "waits_for_consent": dump.waits_for_consent,
        "members": [_member_json(member) for member in store.members(dump)] if dump.member is not None else [],
        "skipped": dump.upload.skipped if dump.upload else [],
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
        "grown": dump.grown,
    }


def _member_json(dump: Dump) -> dict:
    return {
        "id": dump.public_id,
        "name": dump.name,
        "url": reverse("dump-detail", args=[dump.public_id]),
        "state": dump.state,
        "error": dump.error,
        "lines": dump.lines,
        "events": dump.events,
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

    def change(self, public_id: str, what: str, act: Callable[[Dump], bool], refusal: str, status: int = 202):
        """Do *act* to the dump and record it as *what*; 409 with *refusal* where the state of the dump forbids it."""
        dump = self.dump(public_id)
        with transaction.atomic():
            if not act(dump):
                raise ApiError(409, "state", f"This dump is {dump.state}; {refusal}.")
            audit.record(self.request, what, dump)
        return json_answer(dump_json(self.dump(public_id)), status)

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
            *sorting(SORTS),
            *TEAM,
            *parameters(q="part of the name", state=(State.values, "in this state")),
        ],
        responses={200: page_of(DumpBody), 400: Error},
    ),
    post=extend_schema(operation_id="dumps_begin", request=NewDump, responses={201: DumpBody, 400: Error, 413: Error}),
)
class Dumps(DumpView):
    def get(self, request):
        """Dumps, newest first."""
        reading = access.MayRead()
        if not reading.has_permission(request, self):
            self.permission_denied(request, reading.message, reading.code)
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
            dump = _begin(request, team, data, data.get("size"))
            audit.record(request, "upload", dump, size=data.get("size"))
        return json_answer(dump_json(dump), 201)


@extend_schema_view(
    get=extend_schema(operation_id="dumps_detail", responses={200: DumpBody, 404: Error}),
    put=extend_schema(
        operation_id="dumps_upload",
        parameters=[
            *TEAM,
            *parameters(
                zone="zone of times without one",
                session="id or key of the session to add to",
                offset_ms="int: added to all times",
                stamp=(Stamp.values, "what the time of a tool call is"),
                join="bool: the producers' session ids join dumps",
            ),
        ],
        request=Binary,
        responses={202: DumpBody, 200: OpenApiResponse(DumpBody, description="the same bytes again"), **_REFUSALS},
    ),
    patch=extend_schema(operation_id="dumps_tell", request=Rules, responses={200: DumpBody, **_REFUSALS}),
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
        told = NewDump(
            data={
                "name": id,
                "zone": params.text("zone"),
                "session": params.text("session"),
                "offset_ms": params.integer("offset_ms", 0, -pages.MAX_INT),
                "stamp": params.word("stamp", Stamp.values) or "",
                "join": params.flag("join") or False,
            }
        )
        told.is_valid(raise_exception=True)
        data = body(request, settings.MAX_SLICE_BYTES)
        with transaction.atomic():
            dump = _begin(request, team, told.validated_data, len(data))
            store.append_bytes(dump, 0, data)
            audit.record(request, "upload", dump, size=len(data))
            return _finish(dump)

    def patch(self, request, id):
        """Tell how its times are read; the sessions of the dump are placed in time again."""
        dump = self.dump(id)
        told = Rules(data=request.data)
        told.is_valid(raise_exception=True)
        with transaction.atomic():
            jobs.tell(dump, **told.validated_data)
            audit.record(request, "change", dump, **told.validated_data)
        return json_answer(dump_json(self.dump(id)))

    def delete(self, request, id):
        """Remove a dump and all that came from it."""
        dump = self.dump(id)
        with transaction.atomic():
            audit.record(request, "delete", dump, sha256=dump.sha256, lines=dump.lines, events=dump.events)
            jobs.delete(dump)
        return Response(status=204)


def _begin(request, team, told: dict, size: int | None) -> Dump:
    """A dump that waits for its bytes, as a checked NewDump says."""
    return store.begin(
        team,
        told["name"],
        size,
        request.user,
        zone=told.get("zone", ""),
        session_key=told.get("session", ""),
        offset_ms=told["offset_ms"],
        stamp=told.get("stamp", ""),
        join=told["join"],
    )


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
        return self.change(id, "cancel", jobs.cancel, "there is nothing to cancel", 200)


class RetryDump(DumpView):
    @extend_schema(operation_id="dumps_retry", request=None, responses={202: DumpBody, **_REFUSALS})
    def post(self, request, id):
        """Go on with a dump that failed or was cancelled, from where it stopped."""
        return self.change(id, "retry", jobs.retry, "it neither failed nor was cancelled")


class ReimportDump(DumpView):
    @extend_schema(operation_id="dumps_reimport", request=Again, responses={202: DumpBody, **_REFUSALS})
    def post(self, request, id):
        """Forget what came from a dump and import it again, by other rules. Its sessions keep their addresses."""
        dump = self.dump(id)
        told = Again(data=request.data)
        told.is_valid(raise_exception=True)
        with transaction.atomic():
            jobs.reimport(dump, **told.validated_data)
            audit.record(request, "reimport", dump, **told.validated_data)
        return json_answer(dump_json(self.dump(id)), 202)


class ImportAnyway(DumpView):
    @extend_schema(operation_id="dumps_import_anyway", request=None, responses={202: DumpBody, **_REFUSALS})
    def post(self, request, id):
        """Import what could be read of a damaged archive."""
        return self.change(id, "import anyway", jobs.import_anyway, "it is no damaged archive that waits")


class RetryBadLines(DumpView):
    @extend_schema(operation_id="dumps_retry_bad_lines", request=None, responses={200: ReadAgain, **_REFUSALS})
    def post(self, request, id):
        """Read the quarantined lines once more; those that can be read now become events in their place."""
        dump = self.dump(id)
        with transaction.atomic():
            read = jobs.retry_bad_lines(dump)
            audit.record(request, "retry", dump, lines=read)
        return json_answer({"read": read, "left": dump.bad_lines.count()})


class BadLines(ApiView):
    @extend_schema(
        operation_id="dumps_bad_lines",
        parameters=PAGING,
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
    throttle_scope = "export"

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
        """The exact bytes, an archive still packed. A ``Range`` of bytes is answered with at most 8 MiB of it;
        ``Content-Range`` says which."""
        dump = found(dumps_of(request), id)
        tag = f'"{dump.sha256}"' if dump.sha256 else None
        size = store.received_size(dump)
        headers = {"Accept-Ranges": "bytes", **({"ETag": tag} if tag else {})}
        if dump.sha256:
            headers["Repr-Digest"] = f"sha-256=:{base64.b64encode(bytes.fromhex(dump.sha256)).decode()}:"
        wanted = _range(request, size, tag)
        first, last = wanted or (0, size - 1)
        headers["Content-Length"] = str(last - first + 1)
        if wanted:
            headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        if first == 0:  # one record for a download, not one for each of its ranges
            with transaction.atomic():
                audit.record(request, "export", dump, form="original")
        pieces = store.received(dump, first, last - first + 1)
        name = dump.upload.name if dump.container and dump.upload else dump.name
        return stream(request, pieces, "application/octet-stream", name, 206 if wanted else 200, headers)


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

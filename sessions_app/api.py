"""Sessions over HTTP: lists, rows, the outline, what was counted, texts and exports."""

from itertools import chain

import msgspec
from django.db import transaction
from django.db.models import F, QuerySet
from django.http import Http404, HttpResponse
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers

from auditweb import pages
from auditweb.api import PAGING, TEAM, ApiView, Error, found, json_answer, page_answer, page_of, parameters, stream
from auditweb.log import id_range
from auditweb.pages import BadQuery, iso
from auditweb.teams import access, audit
from sessions_app import export, outline, summary, timeline
from sessions_app.models import Event, Session, ToolCall, Turn
from sessions_app.views import HAS, search

SORTS = {
    "updated": "updated_at",
    "started": "first_us",
    "title": "title",
    "duration": "duration_us",
    "events": "event_count",
    "turns": "turn_count",
    "tools": "tool_calls",
    "failures": "tool_failures",
    "interruptions": "interruptions",
    "vision": "vision_count",
    "errors": "errors",
    "status": "status_count",
}
PROMOTED = ("tool_name", "arguments", "status", "agent_id")  # what RoomKit lifts out of an entry's metadata


def _counts(help_text: str) -> serializers.DictField:
    return serializers.DictField(child=serializers.IntegerField(), help_text=help_text)


class Counters(serializers.Serializer):
    """What was counted in a session, as ``summary.counters`` gives it."""

    events = serializers.IntegerField()
    user_turns = serializers.IntegerField()
    assistant_turns = serializers.IntegerField()
    tool_calls = serializers.IntegerField()
    tool_failures = serializers.IntegerField()
    tool_ms = serializers.FloatField()
    tools = _counts("tool: calls")
    tool_statuses = _counts("status: calls")
    agents = _counts("agent: events")
    kinds = _counts("kind: events")
    vision = serializers.IntegerField()
    interruptions = serializers.IntegerField()
    errors = serializers.IntegerField()  # type: ignore[assignment]
    status_entries = serializers.IntegerField()
    duration_s = serializers.FloatField(allow_null=True)


class SessionBody(Counters):
    """A session and what was counted in it."""

    id = serializers.CharField()
    title = serializers.CharField()
    url = serializers.CharField(help_text="its page")
    opening = serializers.CharField(help_text="first words of the first user turn")
    live = serializers.BooleanField()
    started_at = serializers.DateTimeField(allow_null=True, help_text="earliest readable time")
    ended_at = serializers.DateTimeField(allow_null=True, help_text="latest readable time")
    updated_at = serializers.DateTimeField()
    last_seq = serializers.IntegerField()
    revision = serializers.IntegerField()
    channel = serializers.CharField()
    participant = serializers.CharField()
    turns = serializers.IntegerField()


class DumpOfSession(serializers.Serializer):
    id = serializers.CharField()
    name = serializers.CharField()
    url = serializers.CharField()
    zone = serializers.CharField()
    zone_source = serializers.CharField()


class SessionDetail(SessionBody):
    key = serializers.CharField(help_text="what its producer calls it, or the id of its dump")
    dumps = DumpOfSession(many=True)
    status_bus = serializers.CharField(allow_null=True, help_text="id of the status log that its posts are on")


class Row(serializers.Serializer):
    """One event as a row of the timeline."""

    seq = serializers.IntegerField()
    at = serializers.DateTimeField(allow_null=True, help_text="UTC; null when no time could be read")
    ts = serializers.CharField(help_text="the time as written")
    ts_quality = serializers.CharField(help_text="aware, inferred, assumed or missing")
    kind = serializers.CharField(help_text="the producer's own word")
    lane = serializers.CharField()
    role = serializers.CharField()
    agent = serializers.CharField()
    tool = serializers.CharField()
    status = serializers.CharField()
    duration_ms = serializers.FloatField(allow_null=True)
    text = serializers.CharField(help_text='at most 2000 characters; the flag "more" tells that there are more')
    cut = serializers.IntegerField(allow_null=True, help_text="characters at which the producer cut the text")
    turn = serializers.IntegerField(allow_null=True)
    call = serializers.IntegerField(allow_null=True, help_text="seq of the first event of its tool call")
    run = serializers.IntegerField(allow_null=True)
    visibility = serializers.CharField()
    dump = serializers.CharField(allow_null=True)
    line = serializers.IntegerField()
    flags = serializers.ListField(child=serializers.CharField())


class TimelinePage(serializers.Serializer):
    entries = Row(many=True)
    last_seq = serializers.IntegerField()
    revision = serializers.IntegerField()
    total = serializers.IntegerField(allow_null=True, help_text="rows of the session; null when a filter is on")
    more = serializers.BooleanField(help_text="there are further rows in the direction of the page")


class Times(serializers.Serializer):
    number = serializers.IntegerField()
    started_at = serializers.DateTimeField(allow_null=True)
    ended_at = serializers.DateTimeField(allow_null=True)
    duration_ms = serializers.FloatField(allow_null=True)
    stamp = serializers.CharField(help_text="which end the producer recorded; the other follows from the duration")


class EventDetail(Row):
    """One event with all that is known of it."""

    metadata = serializers.DictField(help_text="what has no column of its own")
    dump_name = serializers.CharField()
    raw = serializers.CharField(help_text="its line; U+FFFD stands for what is not UTF-8")
    raw_base64 = serializers.CharField(allow_null=True, help_text="the exact bytes, when raw cannot show them")
    tool_call = Times(allow_null=True)


class OutlineColumns(serializers.Serializer):
    seq = serializers.ListField(child=serializers.IntegerField(), help_text="differences")
    at_ms = serializers.ListField(child=serializers.IntegerField(allow_null=True), help_text="differences, from start")
    lane = serializers.ListField(child=serializers.IntegerField())
    agent = serializers.ListField(child=serializers.IntegerField(allow_null=True))
    state = serializers.ListField(child=serializers.IntegerField(allow_null=True))
    duration_ms = serializers.ListField(child=serializers.IntegerField(allow_null=True))


class OutlineBody(serializers.Serializer):
    """A whole session in columns, rows in display order."""

    revision = serializers.IntegerField()
    last_seq = serializers.IntegerField()
    start = serializers.DateTimeField(allow_null=True)
    end = serializers.DateTimeField(allow_null=True)
    lanes = serializers.ListField(child=serializers.CharField())
    agents = serializers.ListField(child=serializers.CharField())
    states = serializers.ListField(child=serializers.CharField())
    columns = OutlineColumns()


class TurnBody(serializers.Serializer):
    """One utterance and what followed it, up to the next one."""

    number = serializers.IntegerField()
    role = serializers.CharField()
    first_seq = serializers.IntegerField()
    last_seq = serializers.IntegerField()
    started_at = serializers.DateTimeField(allow_null=True)


class CallBody(serializers.Serializer):
    """A tool call as RoomKit's ToolAuditEntry, with its place and both its times."""

    ts = serializers.CharField()
    agent_id = serializers.CharField()
    tool_name = serializers.CharField()
    arguments = serializers.JSONField()
    result = serializers.CharField()
    status = serializers.CharField()
    duration_ms = serializers.FloatField(help_text="0 when unknown")
    metadata = serializers.DictField()
    seq = serializers.IntegerField()
    number = serializers.IntegerField()
    started_at = serializers.DateTimeField(allow_null=True)
    ended_at = serializers.DateTimeField(allow_null=True)


class SummaryBody(Counters):
    """What was counted, and which texts there are."""

    last_seq = serializers.IntegerField()
    revision = serializers.IntegerField()
    texts = serializers.ListField(child=serializers.CharField(), help_text="values for `of` of summary.txt")


def sessions_of(request) -> QuerySet[Session]:
    """The sessions that the caller may see."""
    return Session.objects.visible_to(request.user).select_related("team", "status_bus")


def session_json(session: Session) -> dict:
    """A session as SessionBody says."""
    return {
        "id": session.public_id,
        "title": session.title,
        "url": reverse("session-detail", args=[session.public_id]),
        "opening": session.opening,
        "live": session.live,
        "started_at": iso(session.first_us),
        "ended_at": iso(session.last_us),
        "updated_at": session.updated_at,
        "last_seq": session.last_seq,
        "revision": session.revision,
        "channel": session.channel,
        "participant": session.participant,
        "turns": session.turn_count,
        **summary.counters(session),
    }


def filtered(sessions: QuerySet[Session], params: pages.Params) -> QuerySet[Session]:
    """*sessions* narrowed by the parameters of the list; a search means the same as on the page."""
    if q := params.text("q"):
        sessions = search(sessions, q)
    for name, column in (("agent", "agents"), ("tool", "tools"), ("status", "tool_statuses")):
        if word := params.text(name):
            sessions = sessions.filter(**{f"{column}__has_key": word})
    if (live := params.flag("live")) is not None:
        sessions = sessions.filter(live=live)
    if has := params.word("has", list(HAS)):
        sessions = sessions.filter(HAS[has])
    if (since := params.moment("from")) is not None:
        sessions = sessions.filter(first_us__gte=since)
    if (until := params.moment("to", end=True)) is not None:
        sessions = sessions.filter(first_us__lt=until)
    if dump := params.text("dump"):
        sessions = sessions.filter(dumps__public_id=dump)
    return sessions.annotate(duration_us=F("last_us") - F("first_us"))


class SessionView(ApiView):
    """Something of one session. Looking at any of it is looking at the session."""

    def session(self, public_id: str) -> Session:
        """The session, noted as viewed. Raises Http404."""
        session = found(sessions_of(self.request), public_id)
        audit.viewed(self.request, session)
        return session


class Sessions(ApiView):
    @extend_schema(
        operation_id="sessions_list",
        parameters=[
            *PAGING,
            *TEAM,
            *parameters(
                q="text in title, opening or agents; tool:, agent:, kind:, status:, has: as on the page",
                agent="an agent that took part",
                tool="a tool that was called",
                status="a status that a tool call had",
                live="bool: running now",
                has=", ".join(HAS),
                dump="id of a dump that it came from",
                to="time or date: began before it (a date counts whole)",
                count="bool: also count all that match (total)",
                **{"from": "time or date: began then or later"},
            ),
        ],
        responses={200: page_of(SessionBody), 400: Error},
    )
    def get(self, request):
        """Sessions, the latest changed first."""
        params = self.params
        # By team alone: behind visible_to's subquery or a join no database keeps to the order of an index (1 → 110 ms).
        sessions = filtered(Session.objects.filter(team=access.team_of(request)), params)
        sort = params.text("sort") or "-updated"
        page = pages.keyset(sessions, sort, params.text("cursor"), params.limit(), SORTS)
        more = {"total": sessions.count()} if params.flag("count") else {}
        return page_answer(page, [session_json(session) for session in page.items], **more)


class OneSession(SessionView):
    @extend_schema(operation_id="sessions_detail", responses={200: SessionDetail, 404: Error})
    def get(self, request, id):
        """A session, its counters and where it came from."""
        session = self.session(id)
        return json_answer(
            session_json(session)
            | {
                "key": session.key,
                "dumps": [
                    {
                        "id": dump.public_id,
                        "name": dump.name,
                        "url": reverse("dump-detail", args=[dump.public_id]),
                        "zone": dump.zone,
                        "zone_source": dump.zone_source,
                    }
                    for dump in session.dumps.order_by("pk")
                ],
                "status_bus": session.status_bus and session.status_bus.public_id,
            }
        )


class Timeline(SessionView):
    @extend_schema(
        operation_id="sessions_timeline",
        parameters=parameters(
            offset="int: rows to skip (0)",
            limit="int: rows, 1 to 1000 (50)",
            after_index="int: rows behind this seq",
            before_index="int: the last rows before this seq; not with after_index",
            seqs="these rows: 1,2,5-9",
            order="arrival (by seq) or time; time goes with offset only",
            visibility_filter="exactly this visibility",
            q="text that a row contains, whatever the case",
            **dict.fromkeys(timeline.FILTERS, "exactly this; may be repeated"),
        ),
        responses={200: TimelinePage, 400: Error, 404: Error},
    )
    def get(self, request, id):
        """Rows of a session, oldest first; paging as RoomKit's ``get_timeline``, a seq being its index."""
        query = timeline.Query.from_params(request.query_params)
        return json_answer(timeline.page(self.session(id), query))


class Outline(SessionView):
    @extend_schema(operation_id="sessions_outline", responses={200: OutlineBody, 304: None, 404: Error})
    def get(self, request, id):
        """The whole session in columns, for an overview. Compressed where accepted, with an ETag."""
        session = self.session(id)
        tag = f'W/"{outline.tag(session)}"'
        if tag in [t.strip() for t in request.META.get("HTTP_IF_NONE_MATCH", "").split(",")]:
            response = HttpResponse(status=304)
        elif _accepts_gzip(request):
            response = json_answer(outline.outline_gzip(session))
            response.headers["Content-Encoding"] = "gzip"
        else:
            response = json_answer(outline.outline(session))
        response.headers["ETag"] = tag
        patch_vary_headers(response, ["Accept-Encoding"])
        return response


def _accepts_gzip(request) -> bool:
    for offer in request.META.get("HTTP_ACCEPT_ENCODING", "").lower().split(","):
        coding, _, weight = offer.replace(" ", "").partition(";q=")
        if coding in ("gzip", "*"):
            return not weight or weight.strip("0.") != ""
    return False


class Turns(SessionView):
    @extend_schema(operation_id="sessions_turns", parameters=PAGING[:2], responses={200: page_of(TurnBody), 404: Error})
    def get(self, request, id):
        """The turns of a session by number."""
        session, params = self.session(id), self.params
        turns = Turn.objects.filter(id__range=id_range(session.pk))
        page = pages.keyset(turns, "id", params.text("cursor"), params.limit())
        items = [
            {
                "number": turn.number,
                "role": turn.role,
                "first_seq": turn.first_seq,
                "last_seq": turn.last_seq,
                "started_at": iso(turn.started_us),
            }
            for turn in page.items
        ]
        return page_answer(page, items, total=session.turn_count)


class ToolCalls(SessionView):
    @extend_schema(
        operation_id="sessions_tool_calls",
        parameters=[
            *PAGING[:2],
            *parameters(
                tool="of this tool", agent="by this agent", status="with this status", failed="bool: that failed"
            ),
        ],
        responses={200: page_of(CallBody), 404: Error},
    )
    def get(self, request, id):
        """The tool calls of a session by number, in the shape of RoomKit's ToolAuditEntry."""
        session, params = self.session(id), self.params
        calls = ToolCall.objects.filter(id__range=id_range(session.pk))
        for name in ("tool", "agent", "status"):
            if word := params.text(name):
                calls = calls.filter(**{name: word})
        if (failed := params.flag("failed")) is not None:
            calls = calls.filter(failed=failed)
        page = pages.keyset(calls, "id", params.text("cursor"), params.limit())
        events = Event.objects.in_bulk([call.pk for call in page.items])
        items = [_call(call, events[call.pk]) for call in page.items if call.pk in events]
        return page_answer(page, items)


def _call(call: ToolCall, event: Event) -> dict:
    parts = timeline.extra_parts(event.extra)
    return {
        "ts": event.ts_text,
        "agent_id": event.agent,
        "tool_name": event.tool,
        "arguments": parts.get("arguments", msgspec.Raw(b"{}")),
        "result": event.text,
        "status": event.status,
        "duration_ms": event.duration_ms or 0,
        "metadata": {name: value for name, value in parts.items() if name not in PROMOTED},
        "seq": call.seq,
        "number": call.number,
        "started_at": iso(call.started_us),
        "ended_at": iso(call.ended_us),
    }


class OneEvent(SessionView):
    @extend_schema(operation_id="sessions_event", responses={200: EventDetail, 404: Error})
    def get(self, request, id, seq: int):
        """One event: whole text, metadata, its line as it was received."""
        try:
            return json_answer(timeline.event_detail(self.session(id), seq))
        except Event.DoesNotExist:
            raise Http404 from None


class SummaryCounters(SessionView):
    @extend_schema(operation_id="sessions_summary", responses={200: SummaryBody, 404: Error})
    def get(self, request, id):
        """What was counted in a session, and which texts summary.txt has."""
        session = self.session(id)
        as_of = {"last_seq": session.last_seq, "revision": session.revision}
        return json_answer(summary.counters(session) | as_of | {"texts": summary.available(session)})


_TEXT = parameters(
    style=f"{', '.join(summary.STYLES)} (upstream)",
    of=f"{', '.join(summary.FORMAT_OF)} (session)",
    zone="zone of the printed clock (UTC): Europe/Paris, +02:00",
    clock="naive (as written) or local (in the zone); by the file when not given",
)


class SummaryText(SessionView):
    @extend_schema(
        operation_id="sessions_summary_text",
        parameters=_TEXT,
        responses={(200, "text/plain"): OpenApiTypes.STR, 400: Error, 404: Error},
    )
    def get(self, request, id):
        """The text that the producer itself would print."""
        pieces = _summary_text(self.session(id), self.params)
        return stream(request, pieces, "text/plain; charset=utf-8")


def _summary_text(session: Session, params: pages.Params):
    of = params.word("of", list(summary.FORMAT_OF), "session")
    style = params.word("style", list(summary.STYLES), "upstream")
    clock = params.word("clock", ("naive", "local")) or None
    try:
        pieces = summary.text(session, of, style, params.text("zone", 60) or None, clock)
    except ValueError as e:
        raise BadQuery("zone", str(e)) from e
    first = next(pieces, b"")  # what fails, fails before the status is sent
    return chain([first], pieces)


class Export(SessionView):
    @extend_schema(
        operation_id="sessions_export",
        parameters=[*parameters(**{"as": f"{', '.join(export.FORMS)}, summary (original)"}), *_TEXT],
        responses={(200, "application/octet-stream"): OpenApiTypes.BINARY, 400: Error, 404: Error},
    )
    def get(self, request, id):
        """The session as a file."""
        session, params = found(sessions_of(request), id), self.params
        form = params.word("as", [*export.FORMS, "summary"], "original")
        pieces = _summary_text(session, params) if form == "summary" else export.pieces(session, form)
        with transaction.atomic():
            audit.record(request, "export", session, form=form)
        name, content_type = export.name_and_type(session, form)
        return stream(request, pieces, content_type, name)

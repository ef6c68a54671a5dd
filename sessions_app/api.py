"""Sessions over HTTP: lists, rows, the outline, what was counted, texts and exports."""

from itertools import chain

from django.db import transaction
from django.db.models import QuerySet
from django.http import Http404, HttpResponse
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers

from auditweb import pages
from auditweb.api import (
    PAGING,
    TEAM,
    ApiView,
    Error,
    found,
    json_answer,
    page_answer,
    page_of,
    parameters,
    sorting,
    stream,
)
from auditweb.log import id_range
from auditweb.pages import BadQuery, iso
from auditweb.teams import access, audit
from auditweb.teams.models import Team
from sessions_app import calls, export, outline, runs, search, summary, terms, timeline
from sessions_app.fulltext import HAS, TRIED
from sessions_app.list_views import note_search
from sessions_app.lists import SORTS, Listing
from sessions_app.models import Event, Session, ToolCall, Turn


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
    severities = _counts("severity: events")
    runs = serializers.IntegerField(help_text="of agents")
    denials = serializers.IntegerField(help_text="decisions that forbade something")
    loops = serializers.IntegerField(help_text="loop warnings and blocks that mean something")
    memory = serializers.IntegerField(help_text="memory operations")
    tasks = serializers.IntegerField()
    observations = serializers.IntegerField()
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
    status_bus = serializers.CharField(allow_null=True, help_text="id of its status log, or of the one linked to it")


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
    severity = serializers.CharField()
    duration_ms = serializers.FloatField(allow_null=True)
    text = serializers.CharField(help_text='at most 2000 characters; the flag "more" tells that there are more')
    cut = serializers.IntegerField(allow_null=True, help_text="characters at which the producer cut the text")
    turn = serializers.IntegerField(allow_null=True)
    call = serializers.IntegerField(allow_null=True, help_text="seq of the first event of its tool call")
    run = serializers.IntegerField(allow_null=True)
    visibility = serializers.CharField()
    depth = serializers.IntegerField(help_text="answers that led to it, in a room's timeline; else 0")
    dump = serializers.CharField(allow_null=True)
    line = serializers.IntegerField()
    flags = serializers.ListField(child=serializers.CharField())


class TimelinePage(serializers.Serializer):
    entries = Row(many=True)
    last_seq = serializers.IntegerField()
    revision = serializers.IntegerField()
    total = serializers.IntegerField(allow_null=True, help_text="rows of the session; null when a filter is on")
    more = serializers.BooleanField(help_text="there are further rows in the direction of the page")


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
    """One utterance and what followed it up to the next one; with ``ref`` the events of one id, which may overlap."""

    number = serializers.IntegerField()
    role = serializers.CharField()
    ref = serializers.CharField(help_text="its producer's own id of it, or empty")
    first_seq = serializers.IntegerField()
    last_seq = serializers.IntegerField()
    started_at = serializers.DateTimeField(allow_null=True)
    ended_at = serializers.DateTimeField(allow_null=True, help_text="null unless its producer wrote an end")
    failed = serializers.BooleanField(help_text="an error, and no end")


class RunBody(serializers.Serializer):
    """One run of an agent in the tree of a session's runs."""

    seq = serializers.IntegerField(allow_null=True, help_text="of its line; null when it left none")
    run_id = serializers.CharField(help_text="may repeat: the line is the run")
    agent = serializers.CharField()
    caller = serializers.CharField(help_text="the id that its line names as its caller's, or empty")
    decision = serializers.CharField(help_text="empty when it came to none")
    started_at = serializers.DateTimeField(allow_null=True)
    parent = serializers.IntegerField(  # type: ignore[assignment]
        allow_null=True, help_text="place in `items` of the run that called it, from 0"
    )
    depth = serializers.IntegerField()
    children = serializers.IntegerField()
    missing = serializers.BooleanField(help_text="others name it, but it left no line")


class RunTree(serializers.Serializer):
    items = RunBody(many=True, help_text="callers ahead of what they called")
    total = serializers.IntegerField(help_text=f"runs with a line; the tree shows {runs.MAX_RUNS:,} of them")


class TaskBody(serializers.Serializer):
    """A task as RoomKit's ``list_tasks`` gives it, as its latest line tells it."""

    id = serializers.CharField()
    title = serializers.CharField()
    description = serializers.JSONField(help_text="a text, unless its producer wrote something else")
    status = serializers.CharField()
    assigned_to = serializers.CharField(allow_null=True)
    created_at = serializers.DateTimeField(allow_null=True)
    metadata = serializers.JSONField(help_text="an object, unless its producer wrote something else")
    seq = serializers.IntegerField(help_text="of its latest line")


class TaskList(serializers.Serializer):
    items = TaskBody(many=True)


class ObservationBody(serializers.Serializer):
    """What a channel noticed, as RoomKit's ``list_observations`` gives it."""

    channel_id = serializers.CharField()
    content = serializers.CharField()
    category = serializers.CharField()
    confidence = serializers.FloatField(allow_null=True, help_text="0 to 1")
    created_at = serializers.DateTimeField(allow_null=True)
    metadata = serializers.JSONField(help_text="an object, unless its producer wrote something else")
    seq = serializers.IntegerField()


class ObservationList(serializers.Serializer):
    items = ObservationBody(many=True)


class Step(serializers.Serializer):
    """One event of a tool call of several."""

    stage = serializers.CharField(help_text="attempt, policy, sandbox, permission, hook, loop or result")
    seq = serializers.IntegerField()
    at = serializers.DateTimeField(allow_null=True)
    kind = serializers.CharField()
    status = serializers.CharField()
    text = serializers.CharField(help_text=f"at most {calls.STEP_TEXT} characters")


class CallOfEvent(serializers.Serializer):
    """A tool call as RoomKit's ToolAuditEntry, with its place, both its times and the chain of its events."""

    ts = serializers.CharField()
    agent_id = serializers.CharField()
    tool_name = serializers.CharField()
    arguments = serializers.JSONField()
    arguments_preview = serializers.CharField(allow_null=True, help_text="what a producer wrote in place of arguments")
    result = serializers.CharField()
    status = serializers.CharField(help_text="empty while it has no outcome")
    duration_ms = serializers.FloatField(allow_null=True, help_text="as its producer measured it")
    metadata = serializers.DictField()
    seq = serializers.IntegerField(help_text="of its attempt, or of its outcome when no attempt was written")
    last_seq = serializers.IntegerField()
    number = serializers.IntegerField()
    turn = serializers.IntegerField(allow_null=True)
    failed = serializers.BooleanField()
    started_at = serializers.DateTimeField(allow_null=True)
    ended_at = serializers.DateTimeField(allow_null=True)
    stamp = serializers.CharField(
        help_text="which end its producer stamped: start, end (the other follows from the duration), or both"
    )
    inferred = serializers.BooleanField(help_text="its events name no call; their order tied them")
    chain = Step(many=True)


class CallBody(CallOfEvent):
    """The same in lists, where RoomKit has 0 for an unknown duration."""

    duration_ms = serializers.FloatField(help_text="0 when unknown")


class EventDetail(Row):
    """One event with all that is known of it."""

    metadata = serializers.DictField(help_text="what has no column of its own")
    dump_name = serializers.CharField()
    raw = serializers.CharField(help_text="its line; U+FFFD stands for what is not UTF-8")
    raw_base64 = serializers.CharField(allow_null=True, help_text="the exact bytes, when raw cannot show them")
    tool_call = CallOfEvent(allow_null=True)


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


def listing(team: Team, params: pages.Params) -> Listing:
    """The sessions of *team* that the parameters of the list ask for; a search means the same as on the page."""
    facets = [(name, word) for name in ("agent", "tool", "status") if (word := params.text(name))]
    if has := params.word("has", list(HAS)):
        facets.append(("has", has))
    return Listing(
        [team.pk],
        terms.parse(params.text("q")),
        facets,
        params.flag("live"),
        params.moment("from"),
        params.moment("to", end=True),
        params.text("dump"),
    )


SEARCH = (
    "words, all in one event, or all in title, first words and agents; the last may be the beginning of a word; quotes "
    "hold words together, - excludes; tool:, agent:, kind:, status:, has: name one exactly"
)


class SessionView(ApiView):
    """Something of one session. Looking at any of it is looking at the session."""

    def session(self, public_id: str) -> Session:
        """The session, noted as viewed. Raises Http404."""
        session = found(sessions_of(self.request), public_id, "room_not_found")
        audit.viewed(self.request, session)
        return session


class Sessions(ApiView):
    @extend_schema(
        operation_id="sessions_list",
        parameters=[
            *PAGING,
            *sorting(SORTS),
            *TEAM,
            *parameters(
                q=SEARCH,
                agent="an agent that took part",
                tool="a tool that was called",
                status="a status that a tool call had",
                live="bool: running now",
                has=(HAS, "has any of it"),
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
        found = listing(access.team_of(request), params)
        page = found.page(params.text("sort") or "-updated", params.text("cursor"), params.limit())
        more: dict = {"total": found.total()} if params.flag("count") else {}
        if found.tried:
            more["tried"] = TRIED
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
            offset="int: rows to skip (0); a cursor wins over it",
            limit="int: rows, 1 to 1000 (50)",
            after_index="int: rows behind this seq; 0 for the first ones. RoomKit's own index begins at 0",
            before_index="int: the last rows before this seq, oldest first; not with after_index",
            newest_first="bool: the last rows instead of the first, oldest first; offset counts from the end",
            seqs="these rows: 1,2,5-9",
            order=(("arrival", "time"), "by seq (arrival) or by time; time goes with offset only"),
            visibility_filter="exactly this visibility",
            q="words that a row has; as in the list of sessions",
            **dict.fromkeys(timeline.FILTERS, "many: exactly this, or one of these"),
        ),
        responses={200: TimelinePage, 400: Error, 404: Error},
    )
    def get(self, request, id):
        """Rows of a session, oldest first; paging as RoomKit's ``get_timeline``, a seq being its index."""
        query = timeline.Query.from_params(request.query_params)
        return json_answer(timeline.page(self.session(id), query))


class MatchesBody(serializers.Serializer):
    """All rows that pass."""

    seqs = serializers.ListField(child=serializers.IntegerField(), help_text="differences; ascending")
    total = serializers.IntegerField()
    last_seq = serializers.IntegerField()
    revision = serializers.IntegerField()


class Matches(SessionView):
    @extend_schema(
        operation_id="sessions_matches",
        parameters=parameters(
            visibility_filter="exactly this visibility",
            q="words that a row has; as in the list of sessions",
            **dict.fromkeys(timeline.FILTERS, "many: exactly this, or one of these"),
        ),
        responses={200: MatchesBody, 400: Error, 404: Error},
    )
    def get(self, request, id):
        """Which rows of a session pass the filters and have the words: the place of every match, and how many."""
        query = timeline.Query.from_params(request.query_params)
        session = self.session(id)
        seqs = timeline.matching(session, query)
        return json_answer(
            {
                "seqs": [seq - before for before, seq in zip([0, *seqs], seqs, strict=False)],
                "total": len(seqs),
                "last_seq": session.last_seq,
                "revision": session.revision,
            }
        )


class HitSession(serializers.Serializer):
    id = serializers.CharField()
    title = serializers.CharField()


class Hit(serializers.Serializer):
    """One event that a search found."""

    session = HitSession()
    seq = serializers.IntegerField()
    at = serializers.DateTimeField(allow_null=True)
    kind = serializers.CharField()
    lane = serializers.CharField()
    tool = serializers.CharField()
    agent = serializers.CharField()
    snippet = serializers.CharField(help_text="of its text, else of what has no column")
    marks = serializers.ListField(
        child=serializers.ListField(child=serializers.IntegerField(), min_length=2, max_length=2),
        help_text="[start, end] of what matches, in characters of the snippet",
    )
    url = serializers.CharField(help_text="its place on the page of its session")


class HitPage(serializers.Serializer):
    items = Hit(many=True)
    next = serializers.CharField(allow_null=True)
    tried = serializers.IntegerField(
        allow_null=True, help_text="so many events were read without filling the page; `next` goes on behind them"
    )


class Search(ApiView):
    throttle_scope = "search"

    @extend_schema(
        operation_id="search",
        parameters=[
            OpenApiParameter("q", OpenApiTypes.STR, required=True, description=SEARCH),
            *parameters(cursor="`next` of another page", limit=f"int: rows, 1 to {search.MAX_LIMIT} ({search.LIMIT})"),
            *TEAM,
        ],
        responses={200: HitPage, 400: Error},
    )
    def get(self, request):
        """Events of all sessions that have the words: newest session first, in it the last event first."""
        params = self.params
        words, cursor = params.text("q"), params.text("cursor")
        if not words:
            raise BadQuery("q", "q must say what to look for")
        team = access.team_of(request)
        found = search.events([team.pk], words, cursor, params.limit(search.LIMIT, search.MAX_LIMIT))
        note_search(request, [team.pk], words, cursor)
        return json_answer(found)


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
    @extend_schema(operation_id="sessions_turns", parameters=PAGING, responses={200: page_of(TurnBody), 404: Error})
    def get(self, request, id):
        """The turns of a session by number."""
        session, params = self.session(id), self.params
        turns = Turn.objects.filter(id__range=id_range(session.pk))
        page = pages.keyset(turns, "id", params.text("cursor"), params.limit())
        items = [
            {
                "number": turn.number,
                "role": turn.role,
                "ref": turn.ref,
                "first_seq": turn.first_seq,
                "last_seq": turn.last_seq,
                "started_at": iso(turn.started_us),
                "ended_at": iso(turn.ended_us),
                "failed": turn.failed,
            }
            for turn in page.items
        ]
        return page_answer(page, items, total=session.turn_count)


class ToolCalls(SessionView):
    @extend_schema(
        operation_id="sessions_tool_calls",
        parameters=[
            *PAGING,
            *parameters(
                tool="of this tool", agent="by this agent", status="with this status", failed="bool: that failed"
            ),
        ],
        responses={200: page_of(CallBody), 404: Error},
    )
    def get(self, request, id):
        """The tool calls of a session by number, in the shape of RoomKit's ToolAuditEntry."""
        session, params = self.session(id), self.params
        found = ToolCall.objects.filter(id__range=id_range(session.pk))
        for name in ("tool", "agent", "status"):
            if word := params.text(name):
                found = found.filter(**{name: word})
        if (failed := params.flag("failed")) is not None:
            found = found.filter(failed=failed)
        page = pages.keyset(found, "id", params.text("cursor"), params.limit())
        items = [row | {"duration_ms": row["duration_ms"] or 0} for row in calls.rows(page.items)]
        return page_answer(page, items)


class Runs(SessionView):
    @extend_schema(operation_id="sessions_runs", responses={200: RunTree, 404: Error})
    def get(self, request, id):
        """The agent runs of a session as a tree: who called whom, by time, also those that left no line."""
        tree = runs.tree(self.session(id))
        return json_answer({"items": tree["runs"], "total": tree["total"]})


class Tasks(SessionView):
    @extend_schema(
        operation_id="sessions_tasks",
        parameters=parameters(status="exactly this status"),
        responses={200: TaskList, 404: Error},
    )
    def get(self, request, id):
        """The tasks of a session, oldest first."""
        status = self.params.text("status")
        return json_answer({"items": runs.tasks(self.session(id), status)})


class Observations(SessionView):
    @extend_schema(operation_id="sessions_observations", responses={200: ObservationList, 404: Error})
    def get(self, request, id):
        """What channels noticed in a session, oldest first."""
        return json_answer({"items": runs.observations(self.session(id))})


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
    style=(summary.STYLES, "(upstream)"),
    of=(summary.FORMAT_OF, "which lines (session)"),
    zone="zone of the printed clock (UTC): Europe/Paris, +02:00",
    clock=(("naive", "local"), "as written, or in the zone; by the file when not given"),
)


class SummaryText(SessionView):
    @extend_schema(
        operation_id="sessions_summary_text",
        parameters=_TEXT,
        responses={(200, "text/plain"): OpenApiTypes.STR, 400: Error, 404: Error},
    )
    def get(self, request, id):
        """The text that the producer itself would print."""
        wanted = _text_options(self.params)
        return stream(request, _summary_text(self.session(id), wanted), "text/plain; charset=utf-8")


def _text_options(params: pages.Params) -> tuple[str, str, str | None, str | None]:
    of = params.word("of", list(summary.FORMAT_OF), "session")
    style = params.word("style", list(summary.STYLES), "upstream")
    return of, style, params.text("zone", 60) or None, params.word("clock", ("naive", "local")) or None


def _summary_text(session: Session, options: tuple):
    try:
        pieces = summary.text(session, *options)
    except ValueError as e:
        raise BadQuery("zone", str(e)) from e
    first = next(pieces, b"")  # what fails, fails before the status is sent
    return chain([first], pieces)


class Export(SessionView):
    throttle_scope = "export"

    @extend_schema(
        operation_id="sessions_export",
        parameters=[*parameters(**{"as": ([*export.FORMS, "summary"], "which file (original)")}), *_TEXT],
        responses={
            (200, "application/octet-stream"): OpenApiTypes.BINARY,
            (200, "text/csv"): OpenApiTypes.STR,
            (200, "text/plain"): OpenApiTypes.STR,
            400: Error,
            404: Error,
        },
    )
    def get(self, request, id):
        """The session as a file."""
        session, params = found(sessions_of(request), id, "room_not_found"), self.params
        form = params.word("as", [*export.FORMS, "summary"], "original")
        options = _text_options(params)
        pieces = _summary_text(session, options) if form == "summary" else export.pieces(session, form)
        with transaction.atomic():
            audit.record(request, "export", session, form=form)
        name, content_type = export.name_and_type(session, form)
        return stream(request, pieces, content_type, name)

"""Status logs over HTTP: lists, entries by seq, the most recent ones, and the texts of their producer."""

from django.core.exceptions import BadRequest
from django.db.models import Q
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers

from auditweb import pages
from auditweb.api import (
    PAGING,
    TEAM,
    ApiView,
    Error,
    json_answer,
    page_answer,
    page_of,
    parameters,
    sorting,
    stream,
)
from auditweb.errors import NotThere
from auditweb.log import SEQ_BITS
from auditweb.pages import BadQuery, iso
from auditweb.teams import access, audit
from status_app import feed, summary
from status_app.models import StatusBus, StatusBuses

SORTS = {"updated": "updated_at", "name": "name", "started": "first_us", "entries": "entry_count"}
RECENT = 10  # RoomKit's own default
WINDOW = 5  # seconds, that of the guard in RoomKit's documentation
MOST_WINDOW = 86_400
STYLES, RECENT_STYLES = ("upstream", "docs"), ("auto", "quoted", "plain")


class BusBody(serializers.Serializer):
    """A status log."""

    id = serializers.CharField()
    name = serializers.CharField()
    title = serializers.CharField()
    url = serializers.CharField(help_text="its page")
    entries = serializers.IntegerField()
    levels = serializers.DictField(child=serializers.IntegerField(), help_text="status: entries")
    agents = serializers.DictField(child=serializers.IntegerField(), help_text="agent: entries")
    started_at = serializers.DateTimeField(allow_null=True)
    ended_at = serializers.DateTimeField(allow_null=True)
    updated_at = serializers.DateTimeField()
    last_seq = serializers.IntegerField()
    revision = serializers.IntegerField()


class BusDetail(BusBody):
    dumps = serializers.ListField(child=serializers.CharField(), help_text="ids")
    sessions = serializers.ListField(child=serializers.CharField(), help_text="ids")


class EntryBody(serializers.Serializer):
    """One post."""

    seq = serializers.IntegerField()
    ts = serializers.CharField(help_text="the time as written")
    at = serializers.DateTimeField(allow_null=True)
    agent_id = serializers.CharField()
    action = serializers.CharField()
    status = serializers.CharField()
    detail = serializers.CharField()
    metadata = serializers.DictField()
    age_ms = serializers.IntegerField(allow_null=True, help_text="since then, by the clock of the server")


class EntriesPage(serializers.Serializer):
    entries = EntryBody(many=True)
    last_seq = serializers.IntegerField()
    revision = serializers.IntegerField()
    more = serializers.BooleanField()


class Recent(serializers.Serializer):
    entries = EntryBody(many=True)
    last_seq = serializers.IntegerField()
    revision = serializers.IntegerField()


class Guard(serializers.Serializer):
    """Whether something was completed a moment ago."""

    completed = serializers.BooleanField(help_text="within the window")
    window = serializers.IntegerField(help_text="seconds")
    age_ms = serializers.IntegerField(allow_null=True, help_text="of the latest completed entry; null: there is none")
    seq = serializers.IntegerField(allow_null=True)
    agent_id = serializers.CharField(allow_null=True)


def buses_of(request) -> StatusBuses:
    """The status logs that the caller may see."""
    return StatusBus.objects.visible_to(request.user).select_related("team")


def bus_json(bus: StatusBus) -> dict:
    """A status log as BusBody says."""
    return {
        "id": bus.public_id,
        "name": bus.name,
        "title": str(bus),
        "url": reverse("status-detail", args=[bus.public_id]),
        "entries": bus.entry_count,
        "levels": bus.levels,
        "agents": bus.agents,
        "started_at": iso(bus.first_us),
        "ended_at": iso(bus.last_us),
        "updated_at": bus.updated_at,
        "last_seq": bus.last_seq,
        "revision": bus.revision,
    }


def bus_called(request, word: str) -> StatusBus | None:
    """The log with the id *word*, else the one of that name. Raises BadRequest when several teams have one."""
    found = list(buses_of(request).called(word, request.query_params.get("team", ""))[:2])
    if len(found) > 1:
        raise BadRequest("Several of your teams have a log of this name: add ?team= with a short name.")
    return found[0] if found else None


class BusView(ApiView):
    """Something of one status log. Looking at any of it is looking at the log."""

    def bus(self, word: str) -> StatusBus:
        """The log with this id or name, noted as viewed. Raises NotThere."""
        bus = bus_called(self.request, word)
        if bus is None:
            raise NotThere
        audit.viewed(self.request, bus)
        return bus


class Buses(ApiView):
    @extend_schema(
        operation_id="status_list",
        parameters=[*PAGING, *sorting(SORTS), *TEAM, *parameters(q="part of the name")],
        responses={200: page_of(BusBody), 400: Error},
    )
    def get(self, request):
        """Status logs, the latest changed first."""
        params = self.params
        buses = StatusBus.objects.filter(team=access.team_of(request))  # one of the caller's own teams
        if q := params.text("q"):
            buses = buses.filter(Q(title__icontains=q) | Q(name__icontains=q))
        page = pages.keyset(buses, params.text("sort") or "-updated", params.text("cursor"), params.limit(), SORTS)
        return page_answer(page, [bus_json(bus) for bus in page.items])


class Entries(BusView):
    @extend_schema(
        operation_id="status_entries",
        parameters=parameters(
            after="int: entries behind this seq",
            before="int: the last entries before this seq; not with after",
            limit="int: entries, 1 to 1000 (50)",
        ),
        responses={200: EntriesPage, 400: Error, 404: Error},
    )
    def get(self, request, id):
        """Entries by seq, oldest first."""
        params = self.params
        after, before = (params.integer(name, None, 0, (1 << SEQ_BITS) - 1) for name in ("after", "before"))
        if after is not None and before is not None:
            raise BadQuery("before", "after and before exclude each other")
        limit = params.limit(pages.LIMIT, feed.MAX_ROWS)
        return json_answer(feed.page(self.bus(id), after, before, limit))


class RecentEntries(BusView):
    @extend_schema(
        operation_id="status_recent",
        parameters=parameters(n="int: entries, 1 to 1000 (10)", agent_id="of this agent", status="with this status"),
        responses={200: Recent, 400: Error, 404: Error},
    )
    def get(self, request, id):
        """The last entries by time, oldest first."""
        params = self.params
        n = params.integer("n", RECENT, 1, feed.MAX_ROWS) or RECENT
        bus = self.bus(id)
        entries = feed.recent(bus, n, params.text("agent_id"), params.text("status"))
        return json_answer({"entries": entries, "last_seq": bus.last_seq, "revision": bus.revision})


class DelegationGuard(BusView):
    @extend_schema(
        operation_id="status_guard",
        parameters=parameters(window=f"int: seconds, 1 to {MOST_WINDOW:,} ({WINDOW})", agent_id="by this agent"),
        responses={200: Guard, 400: Error, 404: Error},
    )
    def get(self, request, id):
        """Whether something was completed within the last seconds by the clock of the server, and how long ago.

        Ask it before a task is delegated again.
        """
        params = self.params
        window = params.integer("window", WINDOW, 1, MOST_WINDOW) or WINDOW
        found = feed.completed(self.bus(id), params.text("agent_id"))
        age = max(0, found["age_ms"]) if found else None  # a clock that is ahead
        return json_answer(
            {
                "completed": age is not None and age <= window * 1000,
                "window": window,
                "age_ms": age,
                "seq": found and found["seq"],
                "agent_id": found and found["agent_id"],
            }
        )


class RecentText(BusView):
    @extend_schema(
        operation_id="status_recent_text",
        parameters=parameters(n="int: entries, 1 to 500 (10)", style=(RECENT_STYLES, "(auto)")),
        responses={(200, "text/plain"): OpenApiTypes.STR, 400: Error, 404: Error},
    )
    def get(self, request, id):
        """The last entries as an agent would be given them, byte for byte what RoomKit's ``recent_text`` returns."""
        params = self.params
        n = params.integer("n", RECENT, 1, 500) or RECENT
        style = params.word("style", RECENT_STYLES, "auto")
        text = summary.without_end(summary.recent_text(self.bus(id), n, style))
        return stream(request, text, "text/plain; charset=utf-8")


class SummaryText(BusView):
    @extend_schema(
        operation_id="status_summary_text",
        parameters=parameters(style=(STYLES, "(upstream)")),
        responses={(200, "text/plain"): OpenApiTypes.STR, 400: Error, 404: Error},
    )
    def get(self, request, id):
        """The summary that the producer itself would print."""
        style = self.params.word("style", STYLES, "upstream")
        return stream(request, summary.text(self.bus(id), style), "text/plain; charset=utf-8")

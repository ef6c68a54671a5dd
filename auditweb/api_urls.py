"""Addresses of the API. No logic.

Lists and objects end with a slash, what belongs to an object does not. Both spellings answer, for people who type
addresses; the schema names one.
"""

from django.contrib.auth.decorators import login_required
from django.urls import URLPattern, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework.permissions import IsAuthenticated

from auditweb.dumps import api as dumps
from auditweb.dumps import stream_api as streams
from auditweb.throttles import ByKind
from sessions_app import api as sessions
from sessions_app import status_api
from status_app import api as status
from status_app import bus_api

docs = SpectacularSwaggerSplitView.as_view(url_name="api-schema", template_name="api/docs.html")


def _route(address: str, view, name: str) -> list[URLPattern]:
    other = address[:-1] if address.endswith("/") else f"{address}/"
    return [path(address, view.as_view(), name=name), path(other, view.as_view(schema=None), name=f"{name}-too")]


urlpatterns = [
    path(
        "schema/",
        SpectacularAPIView.as_view(permission_classes=[IsAuthenticated], throttle_classes=[ByKind]),
        name="api-schema",
    ),
    path("docs/", login_required(docs), name="api-docs"),
    *_route("dumps/", dumps.Dumps, "api-dump-list"),
    *_route("dumps/<str:id>", dumps.OneDump, "api-dump-detail"),
    *_route("dumps/<str:id>/bytes", dumps.DumpBytes, "api-dump-bytes"),
    *_route("dumps/<str:id>/finish", dumps.FinishDump, "api-dump-finish"),
    *_route("dumps/<str:id>/cancel", dumps.CancelDump, "api-dump-cancel"),
    *_route("dumps/<str:id>/retry", dumps.RetryDump, "api-dump-retry"),
    *_route("dumps/<str:id>/reimport", dumps.ReimportDump, "api-dump-reimport"),
    *_route("dumps/<str:id>/import-anyway", dumps.ImportAnyway, "api-dump-import-anyway"),
    *_route("dumps/<str:id>/bad-lines/retry", dumps.RetryBadLines, "api-dump-bad-lines-retry"),
    *_route("dumps/<str:id>/bad-lines", dumps.BadLines, "api-dump-bad-lines"),
    *_route("dumps/<str:id>/original", dumps.Original, "api-dump-original"),
    *_route("streams/<str:id>", streams.OneStream, "api-stream-detail"),
    *_route("streams/<str:id>/lines", streams.Lines, "api-stream-lines"),
    *_route("streams/<str:id>/heartbeat", streams.Heartbeat, "api-stream-heartbeat"),
    *_route("streams/<str:id>/provisional", streams.Provisional, "api-stream-provisional"),
    *_route("streams/<str:id>/end", streams.EndStream, "api-stream-end"),
    *_route("sessions/", sessions.Sessions, "api-session-list"),
    *_route("sessions/<str:id>/", sessions.OneSession, "api-session-detail"),
    *_route("sessions/<str:id>/timeline", sessions.Timeline, "api-session-timeline"),
    *_route("sessions/<str:id>/matches", sessions.Matches, "api-session-matches"),
    *_route("sessions/<str:id>/outline", sessions.Outline, "api-session-outline"),
    *_route("sessions/<str:id>/turns", sessions.Turns, "api-session-turns"),
    *_route("sessions/<str:id>/tool-calls", sessions.ToolCalls, "api-session-tool-calls"),
    *_route("sessions/<str:id>/runs", sessions.Runs, "api-session-runs"),
    *_route("sessions/<str:id>/tasks", sessions.Tasks, "api-session-tasks"),
    *_route("sessions/<str:id>/observations", sessions.Observations, "api-session-observations"),
    *_route("sessions/<str:id>/events/<int:seq>", sessions.OneEvent, "api-session-event"),
    *_route("sessions/<str:id>/status", status_api.SessionStatus, "api-session-status"),
    *_route("sessions/<str:id>/summary", sessions.SummaryCounters, "api-session-summary"),
    *_route("sessions/<str:id>/summary.txt", sessions.SummaryText, "api-session-summary-text"),
    *_route("sessions/<str:id>/export", sessions.Export, "api-session-export"),
    *_route("search/", sessions.Search, "api-search"),
    *_route("status/", status.Buses, "api-status-list"),
    *_route("status/<str:id>/", bus_api.OneBus, "api-status-detail"),
    *_route("status/<str:id>/entries", status.Entries, "api-status-entries"),
    *_route("status/<str:id>/recent", status.RecentEntries, "api-status-recent"),
    *_route("status/<str:id>/guard", status.DelegationGuard, "api-status-guard"),
    *_route("status/<str:id>/recent.txt", status.RecentText, "api-status-recent-text"),
    *_route("status/<str:id>/summary.txt", status.SummaryText, "api-status-summary-text"),
]

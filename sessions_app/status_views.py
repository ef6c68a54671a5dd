"""The page about the status log beside a session: what was posted in its time, and which log that is."""

from django.contrib.auth.decorators import login_required
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from auditweb.errors import ApiError
from auditweb.teams import access, audit
from sessions_app import status_lane
from sessions_app.models import Session
from sessions_app.status_api import link
from sessions_app.views import find_session, head
from status_app import story
from status_app.models import StatusBus

SHOWN = 200  # entries, the newest
CHOICES = 200  # logs in the list, those that changed last


@login_required
@require_http_methods(["GET", "POST"])
def session_status(request, public_id: str):
    """The posts in the time of a session; POST ``bus`` (an id, or "") links it to a log."""
    session = find_session(request, public_id)
    if request.method == "POST":
        access.require(request, session.team, "review")
        try:
            link(request, session, request.POST.get("bus", "")[:200] or None)
        except ApiError as e:
            return _page(request, session, 400, str(e.detail))
        query = f"?{request.GET.urlencode()}" if request.GET else ""
        return redirect(reverse("session-status", args=[public_id]) + query)
    audit.viewed(request, session)
    return _page(request, session)


def _page(request, session: Session, status: int = 200, refused: str = ""):
    bus = session.status_bus
    context: dict = {"session": session, "bus": bus, "refused": refused, **head(request, session, "session-status")}
    if bus is not None:
        found = status_lane.in_time(session, bus)
        shown = list(found.select_related("dump").order_by("-sort_us", "-id")[:SHOWN])
        address = reverse("status-detail", args=[bus.public_id])
        context |= story.tell(bus, shown, [], timezone.now() if session.live else None, address)
        context["total"] = found.count()
    if access.may(request, session.team, "review"):
        context["choices"] = _choices(session)
    return render(request, "sessions/session_status.html", context, status=status)


def _choices(session: Session) -> list[tuple[str, list[StatusBus]]]:
    """(heading, logs) of the team: first those with posts in the time of *session*."""
    buses = list(StatusBus.objects.filter(team=session.team).order_by("-updated_at", "-pk")[:CHOICES])
    if session.status_bus is not None and session.status_bus not in buses:
        buses.append(session.status_bus)
    same = [bus for bus in buses if _meets(bus, session)]
    return [("In the time of this session", same), ("Others", [bus for bus in buses if bus not in same])]


def _meets(bus: StatusBus, session: Session) -> bool:
    if bus.first_us is None or bus.last_us is None or session.first_us is None or session.last_us is None:
        return False
    return bus.last_us >= session.first_us and (session.live or bus.first_us <= session.last_us)

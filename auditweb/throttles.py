"""How fast one caller may go on: counted by the minute in the cache, which all processes share where there is Redis.

Keeps for itself what is counted together and what is told of a refusal. The limits keep one program from crowding out
the others and guard no secret: a counter that the cache has lost begins again, and while Redis is away every process
counts for itself. Sign-in has limits of its own.
"""

import math
import time
from datetime import timedelta
from functools import wraps

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.db import transaction
from django.http import HttpResponse
from django.template import loader
from django.utils import timezone
from rest_framework.throttling import BaseThrottle

from auditweb.errors import ApiError
from auditweb.teams import audit
from auditweb.teams.access import MayIngest
from auditweb.teams.models import RATE_LIMITED, ApiKey, AuditRecord, Result

PERIOD = 60  # seconds; whole minutes by the clock, so that two processes agree on them without asking
TEAM = 10  # the keys of a team may together do so many times what one caller may
TOLD_AGAIN = timedelta(hours=1)  # between two audit records of one caller's refusals of one kind
REMEMBERED = 30 * 86400  # seconds for which refusals are counted that no audit record tells yet

COUNTED = {
    "requests": "requests",
    "search": "searches",
    "export": "exports",
    "ingest": "requests that send something",
    "stream": "requests of live producers",
    "ingest_bytes": "bytes",
}


class ByKind(BaseThrottle):
    """Counts a request as the view's ``throttle_scope``, else as what it needs: ingest, search (``q``) or requests."""

    def allow_request(self, request, view) -> bool:
        spend(request, getattr(view, "throttle_scope", None) or _kind(request, view))
        return True


def searching(view):
    """The page *view*, whose searches (``q``) are counted like those of the API; too many get the page 429."""

    @wraps(view)
    def counted(request, *args, **kwargs):
        if request.GET.get("q"):
            try:
                spend(request, "search")
            except ApiError as e:
                page = loader.render_to_string("429.html", {"message": str(e.detail)}, request)
                return HttpResponse(page, status=429, headers={"Retry-After": str(e.wait)})
        return view(request, *args, **kwargs)

    return counted


def _kind(request, view) -> str:
    if any(isinstance(permission, MayIngest) for permission in view.get_permissions()):
        return "ingest"
    return "search" if request.query_params.get("q") else "requests"


def spend(request, kind: str, amount: int = 1) -> None:
    """Count *amount* of *kind* (a name of ``settings.RATES``) for the caller of *request*.

    Raises ApiError 429 ``rate_limited`` when the caller, or the keys of its team together, had used up this minute's
    share before: what crosses the line passes, so a limit below the size of one slice still lets slices through.
    """
    if not request.user.is_authenticated:
        return
    key = _key(request)
    if share := exceeded(kind, request.user.pk, key.team_id if key else None, amount):
        wait = max(1, math.ceil(PERIOD - time.time() % PERIOD))
        _tell(request, kind)
        sentence = f"More than {share:,} {COUNTED[kind]} in a minute. Try again in {wait} seconds."
        raise ApiError(429, RATE_LIMITED, sentence, {"kind": kind, "limit": share, "retry_after": wait}, wait)


def exceeded(kind: str, user_id: int, team_id: int | None, amount: int = 1) -> int:
    """Count *amount* of *kind* for a caller (with *team_id*: by a key of that team); the share of a minute that was
    used up before, 0 when there is room."""
    limit = settings.RATES[kind]
    if not limit:
        return 0
    minute = int(time.time() // PERIOD)
    shares = [(f"caller:{user_id}", limit)]
    if team_id is not None:
        shares.append((f"team:{team_id}", TEAM * limit))
    for who, share in shares:
        if _counted(f"rate:{kind}:{who}:{minute}", amount, 2 * PERIOD) - amount >= share:
            return share
    return 0


def _key(request) -> ApiKey | None:
    key = getattr(request, "auth", None)  # a page's request has none
    return key if isinstance(key, ApiKey) else None


def _counted(name: str, amount: int, seconds: int) -> int:
    """The counter after *amount* was added; at least *amount*, whatever the cache has forgotten meanwhile."""
    try:
        return cache.incr(name, amount)
    except ValueError:  # no such counter
        pass
    if cache.add(name, amount, seconds):
        return amount
    try:
        return cache.incr(name, amount)
    except ValueError:
        return amount


def _tell(request, kind: str) -> None:
    """Let the owners of the team know: one audit record an hour, with the refusals since the one before."""
    counter = f"refused:{kind}:{request.user.pk}"
    refused = _counted(counter, 1, REMEMBERED)
    key = _key(request)
    told = AuditRecord.objects.filter(
        target_id=key.public_id if key else "",
        actor_id=request.user.pk,
        action=RATE_LIMITED,
        detail__contains=f'"{kind}"',
        created_at__gt=timezone.now() - TOLD_AGAIN,
    )
    if told.exists():
        return
    with transaction.atomic():
        # A caller that is too fast comes several times at once: the second one waits here and finds the record.
        get_user_model().objects.select_for_update().get(pk=request.user.pk)
        if not told.exists():
            cache.delete(counter)
            target = key or ("user", "", request.user.get_username())
            audit.record(request, RATE_LIMITED, target, result=Result.DENIED, kind=kind, refused=refused)

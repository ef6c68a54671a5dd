"""``AUDITWEB_AUTH_CALLBACK``: a function of yours that is asked who may send lines and who may open a socket.

Keeps for itself when it is asked, what it may answer and whom its answer makes somebody: see docs/auth-callback.md.
Anything but a clear yes is a no: an exception, five seconds of silence, an answer that makes no sense.
"""

import asyncio
import hashlib
import inspect
import logging
import random
import traceback
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any
from urllib.parse import parse_qsl

from asgiref.sync import async_to_sync
from channels.db import database_sync_to_async
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.db import connection, transaction
from django.utils import timezone
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied

from auditweb.teams import audit, keys
from auditweb.teams.models import ApiKey, Membership, Role, Team

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 5.0
ASK_AGAIN_SECONDS = 25.0  # between two questions about one socket; with the answer at most 30
SIGNED_OUT, REVOKED = 4401, 4403  # close codes

Answer = Mapping[str, Any] | None


@lru_cache(maxsize=4)
def named(path: str) -> Callable[[dict], Awaitable[Answer]]:
    """The function that ``package.module:function`` names. Raises ValueError with a sentence when there is none."""
    module, _, name = path.partition(":")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as e:
        raise ValueError(f"AUDITWEB_AUTH_CALLBACK: {path} cannot be imported: {e}.") from e
    if not (inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(getattr(found, "__call__", None))):  # noqa: B004
        raise ValueError(f"AUDITWEB_AUTH_CALLBACK: {path} is not an async function.")
    return found


async def ask(context: dict) -> Answer:
    """What the callback says about *context*; None also when it fails, is late, or answers with no dict."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            answer = await named(settings.AUTH_CALLBACK)(context)
    except Exception as e:  # its words may hold what the caller sent: only its kind and place are told
        _refused(context, f"{type(e).__name__}{_where(e)}")
        return None
    if answer is not None and not isinstance(answer, Mapping):
        _refused(context, f"it answered with {type(answer).__name__}, not with a dict or None")
        return None
    return answer


def _where(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f" in {frames[-1].name}, line {frames[-1].lineno}" if frames else ""


def _refused(context: dict, why: str) -> None:
    logger.warning("AUDITWEB_AUTH_CALLBACK let nobody in at %s: %s", context["path"], why)


# --- whom an answer admits ---------------------------------------------------------------------------------------


def admitted(answer: Mapping, context: dict) -> ApiKey | None:
    """The key, of a service user of its own, that stands for the caller whom *answer* describes; None when it does not.

    *answer*: ``{"team": short name, "scopes": ["ingest", "read"], "name": …}``. There is one such user for each team
    and name, made when it first comes; nobody knows a text of its key. Owners see it among the keys of the team; when
    they revoke it, that name stays out.
    """
    slug, scopes, name = answer.get("team"), answer.get("scopes"), answer.get("name")
    if not isinstance(slug, str) or not isinstance(name, str) or not isinstance(scopes, list | tuple | set | frozenset):
        _refused(context, "for a caller without key or sign-in it must say team, scopes and name")
        return None
    name = audit.storable(name).strip()[:120]
    known = all(scope in list(keys.SCOPES) for scope in scopes)
    team = Team.objects.filter(slug=audit.storable(slug)).first()
    if not name or not scopes or not known or team is None:
        _refused(context, f"a name, the short name of a team, and scopes of {', '.join(keys.SCOPES)} are needed")
        return None
    key = _key(team, name)
    if key is None:
        _refused(context, f"{name!r} was revoked in the team {team.slug}")
        return None
    key.scopes = " ".join(scope for scope in keys.SCOPES if scope in scopes)  # of this caller, now; not stored
    return key


def _key(team: Team, name: str) -> ApiKey | None:
    username = "callback-" + hashlib.sha256(f"{team.public_id} {name}".encode()).hexdigest()[:32]
    mine = ApiKey.objects.select_related("user", "team").filter(user__username=username, user__is_active=True)
    key = mine.first()
    if key is None:
        with transaction.atomic():
            service, made = get_user_model().objects.get_or_create(username=username, defaults={"is_service": True})
            if made:
                service.set_unusable_password()
                service.save(update_fields=["password"])
                Membership.objects.create(team=team, user=service, role=Role.REVIEWER)
                ApiKey.objects.create(service, expiry=None, team=team, name=name, scopes=" ".join(keys.SCOPES))
                audit.record(service, "create_key", mine.get(), by="callback")
        key = mine.first()
    if key is not None and (key.last_used_at is None or timezone.now() - key.last_used_at > keys.SEEN_EVERY):
        ApiKey.objects.filter(pk=key.pk).update(last_used_at=timezone.now())
    return key


# --- HTTP --------------------------------------------------------------------------------------------------------


def check(request) -> None:
    """Ask about a request of the API that sends something; who has neither key nor sign-in becomes whom it names.

    Raises AuthenticationFailed for a no, PermissionDenied where the scopes do not reach. Does nothing when no callback
    is set.
    """
    if not settings.AUTH_CALLBACK:
        return
    known = request.user.is_authenticated
    context = {
        "kind": "http",
        "path": request.path,
        "method": request.method,
        "headers": {name.lower(): value for name, value in request.headers.items()},
        "query": {name: request.GET[name] for name in request.GET},
        "client": audit.address(request),
        **_who(request.user, request.auth),
    }
    if connection.vendor == "postgresql" and not connection.in_atomic_block:
        connection.close()  # back to the pool: a slow callback must not keep the database from others
    answer = async_to_sync(ask)(context)
    if answer is not None and not known and _own_page_or_program(request):
        key = admitted(answer, context)
        if key is not None:
            request.user, request.auth = key.user, key
            if not key.has_scope("ingest"):  # DRF would ask for a sign-in, since none of its own checks let them in
                raise PermissionDenied("This key may not do that: it lacks the scope ingest.", "missing_scope")
            return
    if answer is None or not known:
        raise AuthenticationFailed("The check that this server's operator added did not let the request in.")


def _own_page_or_program(request) -> bool:
    """False for a page of another site, which could ride on a cookie that only the callback knows."""
    origin = request.headers.get("Origin")
    return origin is None or origin in (f"{request.scheme}://{request.get_host()}", settings.PUBLIC_URL)


def _who(user, key) -> dict:
    person = user.is_authenticated and key is None
    return {"user": user.get_username() if person else None, "key": key.name if key is not None else None}


# --- sockets -----------------------------------------------------------------------------------------------------


class Callback:
    """Asks about every socket when it opens and, as long as it is open, at least every 30 s again.

    Inside of ``People``: ``scope["user"]`` and ``scope["auth"]`` are known, and filled here for who has neither. Nobody
    is asked about who shows a key that is unknown or revoked.
    """

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if not settings.AUTH_CALLBACK or scope["bad_key"]:
            return await self.app(scope, receive, send)
        context = _context(scope)
        answer = await ask(context)
        if answer is not None and not scope["user"].is_authenticated:
            key = await database_sync_to_async(admitted)(answer, context)
            answer = answer if key else None
            scope = {**scope, "auth": key, "user": key.user if key else AnonymousUser()}
        if answer is None:
            return await _close(receive, send)
        await _Asked(context, receive, send).run(self.app, scope)


class _Asked:
    """An open socket that is asked about from time to time; the consumer within knows nothing of it."""

    def __init__(self, context, receive, send):
        self.context, self.receive, self._send = context, receive, send
        self.revoked = False

    async def run(self, app, scope):
        asking = asyncio.create_task(self._ask_again())
        serving = asyncio.create_task(app(scope, self.receive, self.send))
        try:
            await asyncio.wait([asking, serving], return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                self.revoked = True
                await self._send({"type": "websocket.close", "code": REVOKED})
            await serving
        finally:
            asking.cancel()
            serving.cancel()
            await asyncio.gather(asking, serving, return_exceptions=True)

    async def send(self, message):
        if not self.revoked:
            await self._send(message)

    async def _ask_again(self):
        while True:
            await asyncio.sleep(ASK_AGAIN_SECONDS * random.uniform(0.9, 1.0))  # noqa: S311  spreads them
            if await ask(self.context) is None:
                return


async def _close(receive, send) -> None:
    """Not let in. Accepted first: a browser sees close codes of open sockets only."""
    if (await receive())["type"] == "websocket.connect":
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": SIGNED_OUT})
        while (await receive())["type"] != "websocket.disconnect":
            pass


def _context(scope) -> dict:
    headers: dict[str, str] = {}
    for raw, value in scope["headers"]:
        name, text = raw.decode("latin-1").lower(), value.decode("latin-1")
        headers[name] = f"{headers[name]}, {text}" if name in headers else text
    return {
        "kind": "websocket",
        "path": scope["path"],
        "method": "GET",
        "headers": headers,
        "query": dict(parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)),
        "client": (scope.get("client") or [None])[0],
        **_who(scope["user"], scope["auth"]),
    }

"""Sockets: whose page may open one, who is on the other end, which consumer serves it."""

from urllib.parse import urlsplit

from channels.auth import AuthMiddlewareStack
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import URLRouter
from channels.security.websocket import WebsocketDenier
from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.http.request import split_domain_port, validate_host
from django.urls import re_path

from auditweb import socket_urls
from auditweb.teams import callback, keys, timeout

_PORTS = {"http": 80, "https": 443}


class Nowhere(AsyncWebsocketConsumer):
    """An address that no consumer serves: the same close code as a session that is missing or foreign."""

    async def connect(self):
        await self.accept()
        await self.close(code=4404)


class ExactOrigin:
    """Lets through pages of this very site: same scheme, host and port. Everything else is 403 before the handshake.

    Ports matter: cookies do not know them, so any other server on this host could otherwise speak as its visitor.
    Programs send no Origin; they need a key or the word of AUDITWEB_AUTH_CALLBACK, because only browsers carry cookies
    that somebody else can ride on.
    """

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        origin = _header(scope, b"origin")
        if origin is None:
            allowed = bearer(scope) is not None or bool(settings.AUTH_CALLBACK)
        else:
            allowed = same_origin(origin, scope)
        app = self.app if allowed else WebsocketDenier()
        return await app(scope, receive, send)


class People:
    """Fills ``scope["user"]`` and ``scope["auth"]``: a Bearer header's ApiKey, or None beside a cookie's person.

    ``scope["bad_key"]``: there is a key, and it opens nothing.
    """

    def __init__(self, app):
        self.app = app
        self.with_cookie = AuthMiddlewareStack(self.still_valid)

    async def __call__(self, scope, receive, send):
        token = bearer(scope)
        scope = {**scope, "auth": None, "bad_key": False, "user": AnonymousUser()}
        if token is not None and keys.is_meant(token):
            key = await database_sync_to_async(keys.find)(token)
            scope |= {"auth": key, "bad_key": key is None}
            if key is not None:
                scope["user"] = key.user
        elif _header(scope, b"origin") is not None:  # a cookie counts only where a browser says whose page it shows
            del scope["user"]  # the middleware fills in only what is not there
            return await self.with_cookie(scope, receive, send)
        return await self.app(scope, receive, send)

    async def still_valid(self, scope, receive, send):
        # The middleware of pages ends a sign-in that lasted too long; sockets do not pass through it.
        if await database_sync_to_async(timeout.expired)(scope["session"]):
            scope = {**scope, "user": AnonymousUser()}
        return await self.app(scope, receive, send)


def bearer(scope) -> str | None:
    """The text after ``Authorization: Bearer``; None without such a header."""
    scheme, _, token = (_header(scope, b"authorization") or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def same_origin(origin: str, scope) -> bool:
    """Whether *origin* is ``PUBLIC_URL``, or the address that this handshake was sent to (a host in ALLOWED_HOSTS)."""
    theirs = _parts(origin)
    if theirs is None:
        return False
    public = _parts(settings.PUBLIC_URL)
    if theirs == public:
        return True
    host = _header(scope, b"host") or ""
    own = _parts(f"{'https' if scope.get('scheme') == 'wss' else 'http'}://{host}")
    # Behind its proxy the public host has one scheme and one port, those of PUBLIC_URL.
    if own is None or (public is not None and own[1] == public[1]):
        return False
    return theirs == own and validate_host(split_domain_port(host)[0], settings.ALLOWED_HOSTS)


def _parts(origin: str):
    """→ (scheme, host, port), or None for what is no plain http origin."""
    try:
        url = urlsplit(origin)
        port = url.port
    except ValueError:
        return None
    plain = not (url.path or url.query or url.fragment or "@" in url.netloc)
    if url.scheme not in _PORTS or not url.hostname or not plain:
        return None
    return url.scheme, url.hostname, port or _PORTS[url.scheme]


def _header(scope, name: bytes) -> str | None:
    """The value of a header; several of one name never match anything."""
    values = [value.decode("latin-1") for header, value in scope["headers"] if header == name]
    return ", ".join(values) if values else None


_consumers = URLRouter([*socket_urls.urlpatterns, re_path(r"", Nowhere.as_asgi())])
websocket = ExactOrigin(People(callback.Callback(_consumers)))

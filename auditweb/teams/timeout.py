"""How long a sign-in lasts: idle and absolute limits, kept on the server."""

import time
from importlib import import_module

from django.conf import settings
from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY, logout
from django.utils.crypto import constant_time_compare

SINCE, SEEN = "signed_in_at", "seen_at"  # seconds since the epoch
SEEN_EVERY = 60  # seconds; a write for every request would cost more than a minute's precision is worth
# Pages ask for news by themselves; such requests say so with this header, and an unattended page still goes idle.
BACKGROUND = "X-Background"


class Timeouts:
    """Signs people out who did nothing for AUDITWEB_IDLE_SECONDS, or who signed in SESSION_COOKIE_AGE ago."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        session = request.session
        signed_in = SESSION_KEY in session
        if signed_in:
            now = time.time()
            if expired(session, now):
                request.signed_out_by = "timeout"
                logout(request)
            elif BACKGROUND not in request.headers and now - session.get(SEEN, 0) > SEEN_EVERY:
                session.setdefault(SINCE, now)
                session[SEEN] = now
        response = self.get_response(request)
        if signed_in and SESSION_KEY not in session:
            # "storage" would forget the chosen theme, "cookies" those of every other port of this host.
            response.headers["Clear-Site-Data"] = '"cache"'
        return response


def begin(sender, request, **kwargs) -> None:
    """A sign-in: both clocks start."""
    request.session[SINCE] = request.session[SEEN] = time.time()


def expired(session, now: float | None = None) -> bool:
    """Whether the sign-in that *session* holds is over."""
    now = time.time() if now is None else now
    since = session.get(SINCE)
    if since is None:
        return False
    return now - since > settings.SESSION_COOKIE_AGE or now - session.get(SEEN, since) > settings.AUDITWEB_IDLE_SECONDS


def stored(session_key: str | None):
    """The session of *session_key* as it is stored now; an empty one when there is none."""
    return import_module(settings.SESSION_ENGINE).SessionStore(session_key)


def holds(session, user) -> bool:
    """Whether *session*, read afresh, still signs *user* in: not ended, not expired, password unchanged."""
    if session.get(SESSION_KEY) != str(user.pk) or expired(session):
        return False
    return constant_time_compare(session.get(HASH_SESSION_KEY, ""), user.get_session_auth_hash())

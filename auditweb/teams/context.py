"""What every page knows about teams."""

from functools import cache

from django.core.exceptions import BadRequest
from django.http import Http404

from auditweb.teams import access


def teams(request):
    """``teams`` (the person's, by name), ``team`` (the address's, the only one, or none), ``role`` in it.

    Asked only when a template does: error pages must work without a database.
    """
    user = getattr(request, "user", None)

    @cache
    def mine():
        return list(access.teams_of(user)) if user is not None else []

    @cache
    def current():
        if not mine():
            return None
        try:
            return access.team_of(request)
        except (BadRequest, Http404):
            return None

    @cache
    def role():
        return access.role_of(user, current()) if current() else None

    return {"teams": mine, "team": current, "role": role}

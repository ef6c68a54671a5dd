"""How many sessions run, for the navigation of every page."""

from django import template

from sessions_app.models import Session

register = template.Library()


@register.simple_tag(takes_context=True)
def running_sessions(context) -> int:
    """The number of running sessions of the team of this page, or of all teams of the caller."""
    team = context.get("team")
    team, teams = (one() if callable(one) else one for one in (team, context.get("teams")))
    return Session.objects.filter(team__in=[team] if team else teams or [], live=True).count()

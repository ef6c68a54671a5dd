"""Whether a team has demo sessions: the button that removes them is shown to nobody else."""

from django import template

from auditweb.teams.models import Team
from sessions_app import demo

register = template.Library()


@register.filter
def has_demo(team: Team | None) -> bool:
    """False for None, several teams at once."""
    return team is not None and demo.is_in(team)

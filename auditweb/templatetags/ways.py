"""What people type to get something into this site: its command and its address."""

import shlex
import sys

from django import template
from django.conf import settings
from django.urls import reverse

register = template.Library()


@register.simple_tag
def auditweb_command() -> str:
    """How ``auditweb`` is called beside this server: ``AUDITWEB_DATA=/srv/audit .venv/bin/auditweb``.

    Where others sign in too, at ``PUBLIC_URL``, the directory of the data is not for them to read.
    """
    checkout = settings.FILES_DIR == settings.BASE_DIR
    program = ".venv/bin/auditweb" if checkout and sys.prefix == str(settings.BASE_DIR / ".venv") else "auditweb"
    if settings.PUBLIC_URL or settings.DATA_DIR == settings.BASE_DIR / "data":
        return program
    return f"AUDITWEB_DATA={shlex.quote(str(settings.DATA_DIR))} {program}"


@register.simple_tag(takes_context=True)
def site_address(context) -> str:
    """The address under which this page was asked for, without a path: ``http://127.0.0.1:8000``."""
    return context["request"].build_absolute_uri("/").rstrip("/")


@register.simple_tag(takes_context=True)
def client_address(context) -> str:
    """Where pip finds the package for agents on this server."""
    return site_address(context) + reverse("client-wheel")

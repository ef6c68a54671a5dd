"""How a session is doing, on its page and in the list, before scripts run."""

import re
from datetime import timedelta

import pytest
from django.utils import timezone

from sessions_app.models import Session

pytestmark = pytest.mark.django_db


def text_of(html: str) -> str:
    """The words of *html*, its hidden elements left out."""
    html = re.sub(r"<(\w+)[^>]*\shidden>.*?</\1>", "", html, flags=re.S)
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


@pytest.mark.parametrize(
    ("fields", "line_s", "header", "in_list"),
    [
        ({"live": True}, 0, "LIVE", "live"),
        ({"live": True, "heard_s": 3}, 21, r"quiet no line for 2\d s", "quiet"),
        ({"live": True, "heard_s": 40}, 130, r"stale nothing heard for 4\d s", "stale"),
        ({"live": True}, 130, r"stale nothing heard for 2m 1\ds", "stale"),
        ({"ended_s": 60}, 70, "ended", ""),
        ({}, 70, "", ""),
    ],
)
def test_a_session_says_how_it_is(alice_client, team, fields, line_s, header, in_list):
    now = timezone.now()
    ago = {name: now - timedelta(seconds=fields[f"{name[:-3]}_s"]) for name in ("heard_at", "ended_at")
           if f"{name[:-3]}_s" in fields}  # fmt: skip
    session = Session.objects.create(team=team, key="k", title="a call", live=fields.get("live", False), **ago)
    Session.objects.filter(pk=session.pk).update(updated_at=now - timedelta(seconds=line_s, milliseconds=100))
    answer = alice_client.get(f"/sessions/{session.public_id}/?fragment=head").content.decode()
    said = text_of(re.search(r'<p class="session-live">(.*?)</p>', answer, re.S)[1])
    if "ended_at" in ago:
        header = f"ended {ago['ended_at']:%H:%M:%S}"
    assert re.fullmatch(header, said)
    cell = re.search(r'<td data-label="Updated"[^>]*>(.*?)</td>', alice_client.get("/").content.decode(), re.S)[1]
    assert text_of(cell.partition("<time")[0]) == in_list

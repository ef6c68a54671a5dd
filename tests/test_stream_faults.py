"""Producers whose site is killed and whose answers are cut off, and a site whose Redis is harmed: nothing is lost."""

import pytest

from tests.kills import under_kills, under_redis_faults


def test_what_was_acknowledged_survives_kills_and_is_there_once():
    """On the servers of the environment, else on SQLite. ``python -m tests.kills`` does so for long."""
    report = under_kills(kills=4, every=1.5)
    print(report)
    assert report.acked > 500
    assert (report.lost, report.doubled, report.gaps) == (0, 0, [])
    # A line that was committed before its answer was cut off, or before the kill, came again and is there once.
    assert report.cuts > 10
    assert report.duplicates > 0


@pytest.mark.redis
@pytest.mark.postgres
def test_producers_and_watchers_go_on_whatever_happens_to_redis():
    report = under_redis_faults(seconds=3)
    print(report)
    assert report.acked > 500
    assert report.refused == {}
    assert (report.lost, report.doubled, report.gaps) == (0, 0, [])

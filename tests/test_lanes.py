"""What posts of agents have to do with each other, and where they stand in the lanes."""

from status_app import lanes
from status_app.lanes import Post, Tie


def post(seq, second, action="open", status="ok", agent="exec", task=""):
    return Post(seq, None if second is None else round(second * 1e6), agent, action, status, task)


def ends(*posts):
    """pending entry → its end."""
    return {seq: tie.seq for seq, tie in lanes.tie(posts).ended.items()}


def test_a_pending_entry_ends_with_the_next_end_of_the_same_agent_and_action():
    ties = lanes.tie(
        [
            post(1, 0, status="pending"), post(2, 1, status="info"), post(3, 2, "other"), post(4, 3, agent="voice"),
            post(5, 4.2, status="completed"), post(6, 5), post(7, 6, status="pending"), post(8, 9.5, status="failed"),
            post(9, 10, status="pending"),
        ]
    )  # fmt: skip
    assert ties.ended == {1: Tie(5, "completed", 4200), 7: Tie(8, "failed", 3500)}
    assert ties.began == {5: [Tie(1, "completed", 4200)], 8: [Tie(7, "failed", 3500)]}


def test_several_that_are_pending_end_together_unless_their_tasks_differ():
    assert ends(post(1, 0, status="pending"), post(2, 1, status="pending"), post(3, 2)) == {1: 3, 2: 3}
    one, two = post(1, 0, status="pending", task="t1"), post(2, 1, status="pending", task="t2")
    assert ends(one, two, post(3, 2, task="t2"), post(4, 3, task="t1")) == {2: 3, 1: 4}
    assert ends(one, two, post(3, 2, task="t3")) == {}
    assert ends(one, two, post(3, 2)) == {1: 3, 2: 3}
    assert ends(post(1, 0, status="pending"), post(2, 2, task="t9")) == {1: 2}


def test_an_agent_that_is_delegated_to_within_five_seconds_of_its_completion_is_marked():
    ties = lanes.tie(
        [
            post(1, 0, status="completed"), post(2, 4.9, "again", "pending"), post(3, 5, "again", "pending"),
            post(4, 5.1, "again", "pending"), post(5, 6, status="completed", agent="voice"), post(6, 7, "x", "pending"),
            post(7, 8, status="completed"), post(8, 8.5), post(9, None, "x", "pending"),
        ]
    )  # fmt: skip
    assert {seq: (tie.seq, tie.ms) for seq, tie in ties.again.items()} == {2: (1, 4900), 3: (1, 5000)}


def test_lanes_stand_in_time_with_what_waits_and_what_is_shaded():
    posts = [
        post(1, 0, status="pending"), post(2, 50, status="completed"), post(3, 53, status="completed"),
        post(4, 100, status="pending", agent="voice"), post(5, None, status="info", agent="voice"),
    ]  # fmt: skip
    drawn = lanes.draw(posts, lanes.tie(posts), now_us=200_000_000)
    exec_lane, voice = drawn.lanes
    assert (exec_lane.agent, voice.agent, drawn.untimed, drawn.last_us) == ("exec", "voice", 1, 200_000_000)
    assert [(mark.post.seq, mark.x, mark.icon) for mark in exec_lane.marks] == [
        (1, "1.500%", "?"), (2, "25.750%", "*"), (3, "27.205%", "*")
    ]  # fmt: skip
    assert [(bar.x, bar.end, bar.open) for bar in exec_lane.waits] == [("1.500%", "25.750%", False)]
    assert [(bar.x, bar.end) for bar in exec_lane.shadows] == [("25.750%", "29.630%")], "two shadows are one"
    assert [(bar.x, bar.end, bar.open) for bar in voice.waits] == [("50.000%", "98.500%", True)]
    over = lanes.draw(posts, lanes.tie(posts))
    assert (over.last_us, over.lanes[1].waits) == (100_000_000, []), "nothing waits in a log that is over"
    assert lanes.draw([post(1, None)], lanes.tie([])) is None


def test_many_agents_share_the_last_lane():
    posts = [post(n, n, agent=f"a{n % 20:02}") for n in range(40)]
    drawn = lanes.draw(posts, lanes.tie(posts))
    assert [lane.agent for lane in drawn.lanes][-2:] == ["a10", None]
    assert sum(len(lane.marks) for lane in drawn.lanes) == 40

import assert from "node:assert/strict";
import { test } from "node:test";
import { Outline } from "../../static/js/outline.js";
import { TimeScale, lanesOf, runs, ticks, timesOf } from "../../static/js/overview.js";

test("what is under the pointer stays under it while zooming", () => {
  const scale = new TimeScale(100_000, 1000);
  const at = scale.ms(300);
  scale.zoom(4, 300);
  assert.ok(Math.abs(scale.ms(300) - at) < 1e-6);
  scale.zoom(1 / 100, 300);
  assert.ok(scale.isWhole);
});

test("no window leaves the session or gets too short", () => {
  const scale = new TimeScale(100_000, 1000);
  scale.zoom(1e9, 500);
  assert.equal(Math.round(scale.to - scale.from), 20);
  scale.set(40_000, 60_000);
  scale.pan(1e9);
  assert.equal(scale.to, scale.most);
  scale.pan(-1e9);
  assert.equal(scale.from, scale.least);
});

test("a growing session: whole stays whole, the end stays the end, the middle stays put", () => {
  const whole = new TimeScale(1000, 100);
  whole.grow(9000);
  assert.ok(whole.isWhole);
  const end = new TimeScale(1000, 100);
  end.set(610, 1010);
  const window = end.to - end.from;
  for (const span of [5000, 5001, 9000]) {
    end.grow(span);
    assert.ok(end.to > span && end.to < span + 0.1 * window && end.to <= end.most);
    assert.ok(Math.abs(end.to - end.from - window) < 1e-9);
  }
  const { from, to } = end;
  end.grow(20_000, 0, false);
  assert.deepEqual([end.from, end.to], [from, to], "nobody follows");
  end.grow(30_000, 0, true);
  assert.deepEqual([end.from, end.to], [from, to], "the end was not in view");
  end.toEnd();
  assert.ok(end.to > 30_000);
  const middle = new TimeScale(1000, 100);
  middle.set(200, 400);
  middle.grow(5000);
  assert.deepEqual([middle.from, middle.to], [200, 400]);
});

test("ticks are round, inside, and not too many", () => {
  const scale = new TimeScale(100_000, 900);
  const { step, at } = ticks(scale, Date.UTC(2026, 2, 20, 11, 56, 2));
  assert.equal(step, 15_000);
  assert.ok(at.length <= 10);
  for (const ms of at) assert.equal((Date.UTC(2026, 2, 20, 11, 56, 2) + ms) % step, 0);
  const years = ticks(new TimeScale(2e12, 900));
  assert.ok(years.at.length <= 10);
  assert.equal(ticks(new TimeScale(0, 900)).at.length > 0, true);
});

const outline = (lane, agent) => new Outline({
  revision: 1, last_seq: lane.length, start: null, end: null,
  lanes: ["user", "tool", "interruption", "error", "zap"], agents: ["a", "b"], states: [],
  columns: { seq: lane.map(() => 1), at_ms: lane.map(() => null), lane, agent, state: lane.map(() => null),
    duration_ms: lane.map(() => null) },
});

test("tools get a lane per agent when several call them; rare lanes share the last one", () => {
  const { lanes, slotOf } = lanesOf(outline([0, 1, 1, 3, 4, 2], [null, 0, 1, null, null, null]));
  assert.deepEqual(lanes.map((lane) => lane.name), ["user", "assistant", "status", "a", "b", "session"]);
  assert.deepEqual([0, 1, 2, 3, 4].map(slotOf), [0, 3, 4, 5, 5]);
  const one = lanesOf(outline([0, 1], [null, 0]));
  assert.deepEqual(one.lanes.map((lane) => lane.name), ["user", "assistant", "status", "tools"]);
  assert.equal(one.slotOf(1), 3);
});

test("agents whose calls no time places have no lane of their own", () => {
  const some = outline([0, 1, 1], [null, 0, 1]);
  some.at[0] = 0;
  assert.deepEqual(lanesOf(some).lanes.map((lane) => lane.name), ["user", "assistant", "status", "tools"]);
  some.at[1] = some.at[2] = 5;
  assert.deepEqual(lanesOf(some).lanes.map((lane) => lane.name), ["user", "assistant", "status", "a", "b"]);
});

test("the status lane is always there, below the speech; several agents that post have one each", () => {
  const own = new Outline({
    revision: 1, last_seq: 2, start: "2026-01-01T00:00:00Z", end: null, lanes: ["user", "status"], agents: ["exec"],
    states: ["ok"], columns: { seq: [1, 1], at_ms: [0, 5], lane: [0, 1], agent: [null, 0], state: [null, 0], duration_ms: [null, null] },
  });
  const alone = lanesOf(own);
  assert.deepEqual([alone.slotOf(1), alone.slotOfPost("exec"), alone.lanes[2].name], [2, 2, "status"]);
  const { lanes, slotOf, slotOfPost } = lanesOf(own, [{ agent: "voice" }, { agent: "exec" }]);
  assert.deepEqual(lanes.map((lane) => lane.name), ["user", "assistant", "status exec", "status voice", "tools"]);
  assert.deepEqual([slotOf(1), slotOfPost("exec"), slotOfPost("voice"), slotOfPost("nobody")], [2, 2, 3, 2]);
});

test("without any readable time the order is the axis", () => {
  const { at, timed } = timesOf(outline([0, 1, 0], [null, 0, null]));
  assert.equal(timed, false);
  assert.deepEqual([...at], [0, 1000, 2000]);
});

test("overlapping spans become one run of pixels", () => {
  const edges = new Int32Array(10);
  for (const [from, to] of [[1, 4], [3, 6], [8, 9]]) { edges[from]++; edges[to]--; }
  assert.deepEqual(runs(edges), [[1, 6], [8, 9]]);
});

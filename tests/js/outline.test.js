import assert from "node:assert/strict";
import { test } from "node:test";
import { Outline } from "../../static/js/outline.js";

export const json = (columns = {}, more = {}) => ({
  revision: 1, last_seq: 5, start: "2026-03-20T11:56:00.000000Z", end: "2026-03-20T11:57:00.000000Z",
  lanes: ["user", "assistant", "tool"], agents: ["exec"], states: ["ok", "failed"],
  columns: {
    seq: [1, 2, -1, 2, 1].slice(0, 5), at_ms: [0, 2000, 500, null, 3000], lane: [0, 2, 1, 0, 1],
    agent: [null, 0, null, null, null], state: [null, 1, null, null, null], duration_ms: [null, 300, null, null, null],
    ...columns,
  },
  ...more,
});

const row = (seq, at, more = {}) => ({ seq, at, lane: "user", agent: "", status: "", duration_ms: null, ...more });

test("columns come out of their deltas; what is unknown stays unknown", () => {
  const outline = new Outline(json());
  assert.deepEqual([...outline.seq.subarray(0, 5)], [1, 3, 2, 4, 5]);
  assert.deepEqual([...outline.at.subarray(0, 5)], [0, 2000, 2500, NaN, 5500]);
  assert.equal(outline.indexOf(2), 2);
  assert.equal(outline.indexOf(99), -1);
  assert.equal(outline.agentName(1), "exec");
  assert.equal(outline.agentName(0), "");
  assert.equal(outline.failed(1), true);
  assert.equal(outline.failed(0), false);
  assert.equal(outline.untimed, 1);
  assert.equal(outline.span, 5500);
});

test("a gap runs from the user's last words to the first reply only", () => {
  const outline = new Outline(json({ seq: [1, 1, 1, 1, 1], at_ms: [0, 1000, 3000, 500, 2000], lane: [0, 0, 1, 1, 2],
    agent: [null, null, null, null, 0], state: [null, null, null, null, null],
    duration_ms: [null, null, null, null, null] }));
  assert.deepEqual([...outline.gap.subarray(0, 5)], [NaN, NaN, 3000, NaN, NaN]);
});

test("live rows go to the end, a row seen before is passed over", () => {
  const outline = new Outline(json());
  assert.equal(outline.add([row(6, "2026-03-20T11:56:06Z"), row(7, "2026-03-20T11:56:07Z", { lane: "vision" })]), 5);
  assert.equal(outline.add([row(7, "2026-03-20T11:56:07Z")]), 7);
  assert.equal(outline.length, 7);
  assert.equal(outline.laneName(6), "vision");
  assert.equal(outline.lastSeq, 7);
});

test("a late row of another dump is put where its time says", () => {
  const outline = new Outline(json({ at_ms: [0, 2000, 500, 500, 3000] }));
  const before = [...outline.seq.subarray(0, 5)];
  assert.equal(outline.add([row(6, "2026-03-20T11:56:03.200Z")]), 4);
  assert.deepEqual([...outline.seq.subarray(0, 6)], [...before.slice(0, 4), 6, before[4]]);
  for (let i = 0; i < 6; i++) assert.equal(outline.indexOf(outline.seq[i]), i);
});

test("a live tool stands by its stamp and starts before it", () => {
  const outline = new Outline(json());
  outline.add([row(6, "2026-03-20T11:56:10Z", { lane: "tool", duration_ms: 4000, status: "ok" })]);
  assert.equal(outline.indexOf(6), 5);
  assert.equal(outline.at[5], 6000);
  assert.equal(outline.span, 10_000);
});

test("what arrived live is what a reload shows", () => {
  const lanes = ["user", "assistant", "tool"];
  const rows = Array.from({ length: 300 }, (_, i) => row(i + 1, new Date(Date.UTC(2026, 2, 20) + i * 700).toISOString(),
    { lane: lanes[i % 3], duration_ms: i % 3 === 2 ? 100 : null, status: i % 3 === 2 ? "ok" : "" }));
  const live = new Outline(json({ seq: [], at_ms: [], lane: [], agent: [], state: [], duration_ms: [] },
    { start: null, end: null, last_seq: 0 }));
  for (let i = 0; i < rows.length; i += 7) live.add(rows.slice(i, i + 7));
  assert.equal(live.length, 300);
  const whole = new Outline(json({ seq: [], at_ms: [], lane: [], agent: [], state: [], duration_ms: [] },
    { start: null, end: null, last_seq: 0 }));
  whole.add(rows);
  for (const column of ["seq", "at", "lane", "duration", "gap"]) {
    assert.deepEqual([...live[column].subarray(0, 300)], [...whole[column].subarray(0, 300)], column);
  }
});

test("next finds forwards, backwards and says when there is none", () => {
  const outline = new Outline(json());
  const user = (i) => outline.laneName(i) === "user";
  assert.equal(outline.next(0, 1, user), 3);
  assert.equal(outline.next(3, -1, user), 0);
  assert.equal(outline.next(3, 1, user), -1);
  assert.deepEqual(outline.counts().tool, { count: 1, failed: 1, duration_ms: 300 });
});

const empty = () => new Outline(json({ seq: [], at_ms: [], lane: [], agent: [], state: [], duration_ms: [] },
  { start: null, end: null, last_seq: 0 }));
const call = (seq, second, kind, more = {}) => row(seq, `2026-03-20T11:56:0${second}Z`,
  { lane: "tool", kind, call: 2, agent: "exec", ...more });

test("an attempt is open until its outcome comes, and then one bar between the two", () => {
  const outline = empty();
  outline.add([row(1, "2026-03-20T11:56:00Z"), call(2, 1, "tool_call_attempt")]);
  assert.deepEqual([outline.isAttempt(1), outline.isOpen(1), outline.isAttempt(0)], [true, true, false]);
  assert.deepEqual(outline.outcome(1), { status: "?", ms: null });
  outline.add([row(3, "2026-03-20T11:56:02Z", { lane: "decision", kind: "sandbox_decision", call: 2, status: "host" })]);
  outline.add([call(4, 4, "tool_call_failure", { status: "failed", duration_ms: 2500 })]);
  assert.deepEqual(outline.outcome(1), { status: "failed", ms: 3000 });
  assert.equal(outline.isOpen(1), false);
  assert.equal(outline.outcome(3), null);
  assert.ok(Number.isNaN(outline.duration[3]), "its time is the bar of the attempt");
  assert.deepEqual([1, 3].map((i) => outline.failed(i)), [false, true], "a failed call is one failure");
  assert.deepEqual(outline.counts().tool, { count: 2, failed: 1, duration_ms: 3000 });
});

test("a live call of two lines is what a reload shows", () => {
  const live = empty();
  live.add([row(1, "2026-03-20T11:56:00Z"), call(2, 1, "tool_call_attempt")]);
  live.add([call(3, 4, "tool_call_complete", { status: "success", duration_ms: 2900 })]);
  const whole = new Outline(json({ seq: [1, 1, 1], at_ms: [0, 1000, 3000], lane: [0, 2, 2], agent: [null, 0, 0],
    state: [null, 0, 1], duration_ms: [null, 3000, null] }, { states: ["→ success", "success"], last_seq: 3,
    start: "2026-03-20T11:56:00.000000Z" }));
  for (const column of ["seq", "at", "duration", "stamp"]) {
    assert.deepEqual([...live[column].subarray(0, 3)], [...whole[column].subarray(0, 3)], column);
  }
  for (const i of [0, 1, 2]) assert.equal(live.stateName(i), whole.stateName(i));
  // The bar of an attempt reaches past what follows it: a later row still goes to the end.
  assert.equal(whole.add([row(4, "2026-03-20T11:56:02Z")]), 2);
  assert.deepEqual([...whole.seq.subarray(0, 4)], [1, 2, 4, 3]);
});

test("an outcome whose attempt is not there stands for itself", () => {
  const outline = empty();
  outline.add([call(9, 4, "tool_call_failure", { call: 9, status: "denied", duration_ms: 1000 })]);
  assert.deepEqual([outline.at[0], outline.duration[0], outline.failed(0)], [0, 1000, true]);
});

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
  assert.equal(outline.add([row(6, "2026-03-20T11:56:06Z"), row(7, "2026-03-20T11:56:07Z", { lane: "vision" })]), true);
  assert.equal(outline.add([row(7, "2026-03-20T11:56:07Z")]), true);
  assert.equal(outline.length, 7);
  assert.equal(outline.laneName(6), "vision");
  assert.equal(outline.lastSeq, 7);
});

test("a late row of another dump is put where its time says", () => {
  const outline = new Outline(json({ at_ms: [0, 2000, 500, 500, 3000] }));
  const before = [...outline.seq.subarray(0, 5)];
  assert.equal(outline.add([row(6, "2026-03-20T11:56:03.200Z")]), false);
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

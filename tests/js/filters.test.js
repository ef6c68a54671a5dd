import assert from "node:assert/strict";
import { test } from "node:test";
import { fromAddress, isEmpty, mask, positions, toAddress } from "../../static/js/filters.js";
import { Outline } from "../../static/js/outline.js";

const outline = () => new Outline({
  revision: 1, last_seq: 4, start: null, end: null, lanes: ["user", "tool"], agents: ["a", "b"], states: ["ok", "failed"],
  columns: { seq: [1, 1, 1, 1], at_ms: [null, null, null, null], lane: [0, 1, 1, 1], agent: [null, 0, 1, 0],
    state: [null, 0, 1, 1], duration_ms: [null, null, null, null] },
});

test("a filter survives the way through the address, the team stays", () => {
  const search = "?team=red&lane=tool&lane=user&agent=a%20b&status=failed&q=hello";
  const filter = fromAddress(search);
  assert.deepEqual([...filter.lane], ["tool", "user"]);
  assert.equal(toAddress(search, filter, 7), "?team=red&lane=tool&lane=user&agent=a+b&status=failed&q=hello&at=7");
  assert.equal(toAddress("?at=3", fromAddress(""), 0), "");
});

test("lane, agent and failure are answered from the outline", () => {
  const all = outline();
  assert.equal(mask(all, fromAddress("")), null);
  assert.equal(positions(null), null);
  assert.deepEqual([...positions(mask(all, fromAddress("?lane=tool")))], [1, 2, 3]);
  assert.deepEqual([...positions(mask(all, fromAddress("?agent=a&status=failed")))], [3]);
  assert.deepEqual([...positions(mask(all, fromAddress("?agent=nobody")))], []);
  assert.ok(isEmpty(fromAddress("?q=x")));
});

test("a tool is answered by the seqs that the server named", () => {
  assert.deepEqual([...positions(mask(outline(), fromAddress("?tool=t"), { tool: new Set([3]) }))], [2]);
  assert.deepEqual([...positions(mask(outline(), fromAddress("?tool=t")))], []);
});

test("checks that passed can be left out, whatever the case of their word", () => {
  const all = new Outline({
    revision: 1, last_seq: 6, start: null, end: null, lanes: ["decision", "tool"], agents: [],
    states: ["ALLOW", "deny", "ok", "none", "host"],
    columns: { seq: [1, 1, 1, 1, 1, 1, 1], at_ms: Array(7).fill(null), lane: [0, 0, 0, 0, 0, 0, 1], agent: Array(7).fill(null),
      state: [0, 1, 2, 3, 4, null, 2], duration_ms: Array(7).fill(null) },
  });
  assert.deepEqual([...positions(mask(all, fromAddress("?checks=telling")))], [1, 4, 5, 6]);
  assert.equal(mask(all, fromAddress("?checks=zap")), null);
  assert.equal(toAddress("?checks=telling", fromAddress("?checks=telling"), 0), "?checks=telling");
});

test("a severity is answered by the server too, and all that is chosen must hold", () => {
  const asked = { tool: new Set([2, 3]), severity: new Set([3, 4]) };
  assert.deepEqual([...positions(mask(outline(), fromAddress("?tool=t&severity=error"), asked))], [2]);
  assert.deepEqual([...positions(mask(outline(), fromAddress("?severity=error"), asked))], [2, 3]);
  assert.equal(isEmpty(fromAddress("?severity=error")), false);
  assert.equal(toAddress("?severity=zap", fromAddress("?severity=error"), 2), "?severity=error&at=2");
});

test("rows that came or moved from some index on are filtered as if all were looked at anew", () => {
  const json = { revision: 1, last_seq: 0, start: null, end: null, lanes: ["user", "assistant"], agents: [], states: [],
    columns: { seq: [], at_ms: [], lane: [], agent: [], state: [], duration_ms: [] } };
  const all = new Outline(json), filter = fromAddress("?lane=user");
  let passing = mask(all, filter), shown = positions(passing);
  for (let seq = 1; seq <= 60; seq++) {
    // Every third line comes late, and belongs in front of others.
    const at = new Date(Date.UTC(2026, 2, 20) + (seq - (seq % 3 ? 0 : 5)) * 1000).toISOString();
    const from = all.add([{ seq, at, lane: seq % 4 ? "user" : "assistant", agent: "", status: "", duration_ms: null }]);
    passing = mask(all, filter, {}, { from, before: passing });
    shown = positions(passing, { from, before: shown });
    assert.deepEqual(passing, mask(all, filter));
    assert.deepEqual(shown, positions(mask(all, filter)));
  }
  assert.equal(shown.length, 45);
});

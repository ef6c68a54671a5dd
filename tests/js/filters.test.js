import assert from "node:assert/strict";
import { test } from "node:test";
import { fromAddress, isEmpty, mask, positions, toAddress } from "../../static/js/filters.js";
import { matching, step } from "../../static/js/find.js";
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
  assert.deepEqual([...positions(mask(outline(), fromAddress("?tool=t"), new Set([3])))], [2]);
  assert.deepEqual([...positions(mask(outline(), fromAddress("?tool=t"), null))], []);
});

test("matches are gathered page after page", async () => {
  const pages = { 0: [[2, 5], true], 5: [[9], false] };
  const asked = [];
  const fetch = async (url) => {
    const params = new URL(url, "http://x").searchParams;
    asked.push(params.get("q"));
    const [seqs, more] = pages[params.get("after_index")];
    return { ok: true, json: async () => ({ entries: seqs.map((seq) => ({ seq })), more }) };
  };
  assert.deepEqual(await matching("/t", { q: "a&b" }, { fetch }), { seqs: [2, 5, 9], more: false });
  assert.deepEqual(asked, ["a&b", "a&b"]);
  assert.deepEqual(await matching("/t", { q: "x" }, { fetch, most: 2 }), { seqs: [2, 5], more: true });
});

test("a failed search is an error, not an empty answer", async () => {
  await assert.rejects(matching("/t", { q: "x" }, { fetch: async () => ({ ok: false, status: 500 }) }), /500/);
});

test("next and previous go round", () => {
  assert.equal(step([3, 8], 3, 1), 8);
  assert.equal(step([3, 8], 8, 1), 3);
  assert.equal(step([3, 8], 3, -1), 8);
  assert.equal(step([], 3, 1), -1);
});

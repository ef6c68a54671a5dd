import assert from "node:assert/strict";
import { test } from "node:test";

import { matching, step } from "../../static/js/find.js";

test("all matches of a session come with one request", async () => {
  const asked = [];
  const fetch = async (url) => {
    asked.push(url);
    return { ok: true, json: async () => ({ seqs: [3, 1, 40], total: 3, last_seq: 50 }) };
  };
  const found = await matching("/api/v1/sessions/x/matches", { q: "two words", tool: ["a", "b"] }, { fetch });
  assert.deepEqual(found, { seqs: [3, 4, 44], lastSeq: 50 });
  assert.deepEqual(asked, ["/api/v1/sessions/x/matches?q=two+words&tool=a&tool=b"]);
});

test("a refusal is an error", async () => {
  await assert.rejects(matching("/x", { q: "a" }, { fetch: async () => ({ ok: false, status: 400 }) }), /400/);
});

test("steps go round at both ends", () => {
  assert.equal(step([2, 5, 9], 5, 1), 9);
  assert.equal(step([2, 5, 9], 9, 1), 2);
  assert.equal(step([2, 5, 9], 2, -1), 9);
  assert.equal(step([], 2, 1), -1);
});

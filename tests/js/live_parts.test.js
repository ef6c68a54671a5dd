import assert from "node:assert/strict";
import { test } from "node:test";

import { pause, update } from "../../static/js/live_parts.js";

test("a part that changes is asked often, a quiet one seldom, a silent server less and less", () => {
  assert.equal(pause(true, 0), 1000);
  assert.equal(pause(false, 0), 10_000);
  assert.equal(pause(true, 3), 8000);
  assert.equal(pause(true, 50), 30_000);
});

test("an answer that is no page of ours (signed out, failed) changes nothing and counts as a failure", async () => {
  const part = { id: "dumps", get innerHTML() { throw new Error("touched"); } };
  for (const answer of [{ ok: false, status: 500 }, { ok: true, redirected: true, status: 200 }]) {
    await assert.rejects(update([part], "/dumps/?fragment=1", { fetch: async () => answer }));
  }
  const other = { ok: true, redirected: false, text: async () => "" };
  const parse = () => ({ getElementById: () => null });
  await assert.rejects(update([part], "/dumps/?fragment=1", { fetch: async () => other, parse }), /no dumps in the answer/);
});

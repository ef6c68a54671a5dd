import assert from "node:assert/strict";
import { test } from "node:test";

import { lasting, tick } from "../../static/js/pending.js";

test("durations look as the server writes them", () => {
  const shown = { 0: "0 ms", 850: "850 ms", 1890: "1.8 s", 40_900: "40 s", 100_900: "1m 40s", 3_720_000: "1h 02m", 273_600_000: "3d 4h" };
  for (const [ms, text] of Object.entries(shown)) assert.equal(lasting(Number(ms)), text);
});

test("what is pending counts whole seconds, by the server's clock", () => {
  const element = { dataset: { since: "10000" }, textContent: "" };
  const root = { querySelectorAll: () => [element] };
  tick(root, 14_900);
  assert.equal(element.textContent, "4.0 s");
  tick(root, 9000);
  assert.equal(element.textContent, "0 ms");
});

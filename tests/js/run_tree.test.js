import assert from "node:assert/strict";
import { test } from "node:test";
import { below, seen } from "../../static/js/run_tree.js";

test("how much lies below a row follows from the depths", () => {
  assert.deepEqual(below([0, 1, 2, 1, 0, 0, 1]), [3, 1, 0, 0, 0, 1, 0]);
  assert.deepEqual(below([]), []);
  assert.deepEqual(below([2, 3, 0]), [1, 0, 0], "a page may begin in the middle of a tree");
});

test("what lies below a folded row is not seen, folded itself or not", () => {
  const counts = below([0, 1, 2, 1, 0]);
  assert.deepEqual(seen(counts, new Set()), [0, 1, 2, 3, 4]);
  assert.deepEqual(seen(counts, new Set([1])), [0, 1, 3, 4]);
  assert.deepEqual(seen(counts, new Set([0, 1])), [0, 4]);
});

import assert from "node:assert/strict";
import { test } from "node:test";

import { askFor, insert, passes, placeOf } from "../../static/js/status_feed.js";

const row = (seq, at) => ({ dataset: { seq: String(seq), at: String(at) } });

/** As much of a list element as `insert` uses. */
function list(...rows) {
  return {
    children: rows,
    append(one) { this.children.push(one); },
    insertBefore(one, other) { this.children.splice(this.children.indexOf(other), 0, one); },
    get order() { return this.children.map(({ dataset }) => Number(dataset.seq)); },
  };
}

test("entries stand newest first, by time and then by number", () => {
  const feed = list(row(3, 300), row(1, 100));
  assert.equal(insert(feed, [row(4, 200), row(5, 300), row(6, 50)]), 3);
  assert.deepEqual(feed.order, [5, 3, 4, 1, 6]);
});

test("an entry that is there already is brought up to date; one of another page stays there", () => {
  const feed = list(row(3, 100)), changed = [];
  assert.equal(insert(feed, [row(3, 100), row(1, 50)], 2, (old, fresh) => changed.push(fresh.dataset.seq)), 0);
  assert.deepEqual([feed.order, changed], [[3], ["3"]]);
});

test("only what the feed would show counts as new", () => {
  const entry = { agent_id: "exec", status: "ok", action: "open", detail: "The Browser" };
  assert.ok(passes(entry, {}) && passes(entry, { agent: "exec", status: "ok", words: "browser" }));
  for (const other of [{ agent: "voice" }, { status: "failed" }, { words: "door" }]) assert.ok(!passes(entry, other));
});

test("the oldest of all goes to the end", () => assert.equal(placeOf(row(9, 1), [row(1, 100)]), -1));

test("the address for news keeps the filters and drops the page", () => {
  assert.equal(askFor("/status/b/?agent=exec&cursor=xyz", 41), "/status/b/?agent=exec&after=41&fragment=1");
});

import assert from "node:assert/strict";
import { test } from "node:test";

import { begin, step } from "../../static/js/upload.js";
import { bytes, dropped, sentence } from "../../static/js/upload_panel.js";

const file = { name: "call.jsonl", size: 2 ** 20 };
const after = (...messages) => messages.reduce(step, begin(file));

test("each phase says how far it is and what comes next", () => {
  assert.match(sentence(after()), /Waits/);
  assert.equal(sentence(after({ type: "sent", received: 2 ** 19 })), "50 % of 1.0 MiB sent");
  assert.match(sentence(after({ type: "dump", dump: { state: "queued" } })), /You can leave this page/);
  const reading = { state: "importing", progress: 0.999, lines: 41302, lines_per_s: 50350.4 };
  assert.equal(sentence(after({ type: "dump", dump: reading })), "99 % · 41\u202f302 lines · 50\u202f350 lines/s");
  assert.equal(sentence(after({ type: "dump", dump: { state: "done", lines: 1, events: 1 } })), "1 line · 1 event");
  assert.match(sentence(after({ type: "dump", dump: { state: "done", duplicate: true } })), /nothing was imported twice/);
  assert.match(sentence(after({ type: "dump", dump: { state: "done", grown: true, lines: 9, events: 8 } })), /only the rest was read. Now 9 lines · 8 events/);
});

test("trouble on the way is said instead of a number", () => {
  assert.equal(sentence(after({ type: "sent", received: 1 }, { type: "trouble", sentence: "Connection lost" })), "Connection lost");
});

test("sizes in the largest fitting unit", () => {
  assert.equal(bytes(0), "0 bytes");
  assert.equal(bytes(1023), "1023 bytes");
  assert.equal(bytes(16.5 * 2 ** 20), "16.5 MiB");
});

test("a drop tells folders from files", () => {
  const item = (name, isDirectory) => ({ kind: "file", getAsFile: () => ({ name }), webkitGetAsEntry: () => ({ isDirectory }) });
  const found = dropped({ items: [item("a.jsonl", false), item("logs", true), { kind: "string" }] });
  assert.deepEqual(found.map(({ file: { name }, isFolder }) => [name, isFolder]), [["a.jsonl", false], ["logs", true]]);
  assert.deepEqual(dropped({ files: [{ name: "b" }] }), [{ file: { name: "b" }, isFolder: false }]);
});

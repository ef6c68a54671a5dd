import assert from "node:assert/strict";
import { test } from "node:test";
import {
  createRow, exactTime, fillPlaceholder, fillRow, gapText, gapWarmth, isFailure, milliseconds, stageOf, stateOf, view, visible,
} from "../../static/js/row.js";
import { document } from "./mini_dom.js";

export const row = (more = {}) => ({
  seq: 4, at: "2026-03-20T11:56:13.404204Z", ts: "", ts_quality: "aware", kind: "speech", lane: "user", role: "user",
  agent: "", tool: "", status: "", duration_ms: null, text: "hello", cut: null, turn: 1, call: null, run: null,
  visibility: "", dump: "d", line: 4, flags: [], ...more,
});

test("a tool row says its name, its status in a word and its time", () => {
  const said = view(row({ lane: "tool", kind: "tool_call", tool: "describe_screen", status: "ok", duration_ms: 5885.99 }));
  assert.equal(said.label, "TOOL");
  assert.equal(said.name, "describe_screen");
  assert.equal(said.stateWord, "OK");
  assert.equal(said.duration, "5886 ms");
  assert.match(said.exact, /^ended 2026-03-20 11:56:13\.404204 UTC$/);
});

test("a failed row is marked, whatever the case of its status, and so is every row of the error lane", () => {
  assert.match(view(row({ lane: "tool", status: "FAILED" })).classes, /\bfailed\b/);
  assert.match(view(row({ lane: "error", kind: "error" })).classes, /\bfailed\b/);
  assert.doesNotMatch(view(row({ lane: "tool", status: "cancelled" })).classes, /\bfailed\b/);
  assert.ok(isFailure("error", ""));
  assert.equal(stateOf("weird"), "other");
  assert.equal(stateOf(null), "other");
});

test("a row without a readable time shows a dash", () => {
  const said = view(row({ at: null, ts_quality: "missing" }));
  assert.equal(said.time, "–");
  assert.equal(said.exact, "No readable time");
  assert.equal(exactTime("2026-03-20T11:56:02+00:00"), "2026-03-20 11:56:02 UTC");
});

test("a gap is shown from one second on, only on a reply, and warms", () => {
  assert.equal(gapText(999), "");
  assert.equal(gapText(2000), "+2.0 s");
  assert.equal(gapText(59_949), "+59.9 s");
  assert.equal(gapText(59_950), "+1m 00s");
  assert.equal(gapText(185_000), "+3m 05s");
  assert.equal(gapText(3_744_000), "+1h 02m");
  assert.deepEqual([null, NaN, 500, 1000, 3000, 8000].map(gapWarmth), [0, 0, 0, 1, 2, 3]);
  assert.equal(view(row({ lane: "user" }), { gap: 4000 }).gap, "");
  assert.equal(view(row({ lane: "assistant" }), { gap: 4000 }).gap, "+4.0 s");
});

test("what cannot be seen is made visible, and right-to-left text is left alone", () => {
  assert.equal(visible("a\u0000\u001b[31m\u007f\u0085"), "a\u2400\u241b[31m\u2421\ufffd");
  assert.equal(visible("\u202egnp.exe"), "⟨U+202E⟩gnp.exe");
  assert.equal(visible("שלום\nx\ty"), "שלום\nx\ty");
});

test("long text is cut between characters, never inside one", () => {
  const said = view(row({ text: "😀".repeat(500) }));
  assert.equal(said.text, `${"😀".repeat(400)}…`);
  assert.equal(view(row({ text: "é".repeat(400) })).text, "é".repeat(400));
});

test("milliseconds are whole, and tiny ones are not zero", () => {
  assert.deepEqual([null, 0, 0.4, 0.5, 1, 2.5, 5885.9999].map(milliseconds),
    ["", "0 ms", "<1 ms", "<1 ms", "1 ms", "3 ms", "5886 ms"]);
});

test("text of a dump never becomes markup", () => {
  const html = fillRow(createRow(document), row({ text: "<img src=x onerror=alert(1)>", agent: "<b>" })).outerHTML;
  assert.ok(!html.includes("<img"));
  assert.ok(!html.includes("<b>"));
});

test("an element used again keeps nothing of the row before", () => {
  const used = createRow(document);
  fillRow(used, row({ lane: "tool", tool: "x", status: "failed", cut: 500, flags: ["nul", "more"], agent: "a" }));
  fillPlaceholder(used, 9);
  const after = fillRow(used, row({ seq: 9 })).outerHTML;
  assert.equal(after, fillRow(createRow(document), row({ seq: 9 })).outerHTML);
});

test("an unknown lane is drawn plainly with the producer's own word", () => {
  const said = view(row({ lane: "from_the_future", kind: "zap" }));
  assert.equal(said.label, "zap");
  assert.match(said.classes, /lane-other/);
});

const step = (kind, more = {}) => row({ lane: "decision", kind, tool: "look_up", call: 4, seq: 3, ...more });

test("a call of several events reads as one: the attempt has the outcome, the others hang below it", () => {
  const attempt = row({ lane: "tool", kind: "tool_call_attempt", tool: "look_up", call: 4, text: "{'q': 1}" });
  const said = view(attempt, { outcome: { status: "success", ms: 812 } });
  assert.deepEqual([said.label, said.name, said.stateWord, said.duration, said.text],
    ["TOOL", "look_up", "SUCCESS", "812 ms", "{'q': 1}"]);
  assert.equal(said.classes, "row lane-tool in-call");
  assert.match(said.exact, /^began /);
  assert.equal(view(attempt, { outcome: { status: "success", ms: 0 } }).duration, "<1 ms");
  const result = view(row({ lane: "tool", kind: "tool_call_complete", tool: "look_up", call: 4, seq: 6, status: "success" }));
  assert.deepEqual([result.label, result.classes], ["→ RESULT", "row lane-tool in-call call-part"]);
});

test("an attempt without an outcome asks", () => {
  const said = view(row({ lane: "tool", kind: "tool_call_attempt", call: 4 }), { outcome: { status: "?", ms: null } });
  assert.deepEqual([said.state, said.stateWord, said.duration], ["open", "NO OUTCOME", ""]);
});

test("a decision that says no is loud, a healthy loop check is the quietest", () => {
  for (const status of ["deny", "denied", "block", "blocked"]) {
    assert.match(view(step("tool_policy_decision", { status })).classes, /\bfailed\b/);
  }
  assert.equal(view(step("tool_policy_decision", { status: "allow" })).classes, "row lane-decision in-call call-part");
  assert.match(view(step("tool_loop_warning", { status: "ok", text: "none" })).classes, /\bhealthy\b/);
  const warned = view(step("tool_loop_warning", { status: "warning", severity: "warning" }));
  assert.deepEqual([warned.state, warned.severity, warned.label], ["pending", "", "LOOP CHECK"]);
  assert.equal(isFailure("decision", "deny"), false, "the call that was refused is the failure");
  assert.equal(view(step("hook_mutation", { text: "arguments" })).text, "altered arguments");
});

test("what not everybody saw is said, and so is a deep chain of answers", () => {
  const said = view(row({ visibility: "internal", depth: 4 }));
  assert.deepEqual([said.shown, said.depth], ["internal", "depth 4 of 5"]);
  assert.equal(said.classes, "row lane-user hidden-from-some depth-4");
  assert.equal(view(row({ visibility: "all", depth: 1 })).shown, "");
  assert.equal(view(row({ visibility: "all", depth: 1 })).depth, "");
});

test("a severity is said where nothing else says it", () => {
  assert.equal(view(row({ lane: "other", kind: "base", severity: "warning" })).severity, "warning");
  assert.equal(view(row({ lane: "other", kind: "base", severity: "info" })).severity, "");
  assert.equal(view(row({ lane: "error", kind: "error", severity: "error" })).severity, "");
});

test("words of an object's own are no icons of a status", () => {
  for (const status of ["__proto__", "constructor", "toString"]) {
    assert.equal(view(row({ lane: "status", status })).stateWord, `· ${status}`);
  }
});

test("words of an object's own are no stages", () => {
  assert.equal(stageOf(row({ lane: "tool", kind: "constructor" })), "");
  assert.equal(view(row({ lane: "run", kind: "constructor" })).label, "constructor");
  assert.equal(view(row({ lane: "run", kind: "trace:llm.request" })).label, "llm.request");
});

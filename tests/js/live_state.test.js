import assert from "node:assert/strict";
import { test } from "node:test";
import { LiveState, ServerClock, Speaking, durationText, watchers } from "../../static/js/live_state.js";

const T = Date.UTC(2026, 4, 1, 9);
const iso = (second) => new Date(T + second * 1000).toISOString();

/** A state on a machine whose clock goes an hour wrong; `at(second)` moves both clocks. */
function stage(seconds = 0) {
  let own = T - 3_600_000;
  const clock = new ServerClock(() => own);
  const state = new LiveState({ clock, seconds });
  const at = (second) => { own = T - 3_600_000 + second * 1000; };
  return { state, at, clock };
}

test("durations look as on the server, without tenths", () => {
  assert.deepEqual([0.9, 59.9, 100.9, 3725, 3 * 86400 + 4 * 3600].map(durationText),
    ["0 s", "59 s", "1m 40s", "1h 02m", "3d 4h"]);
});

test("a session is live, then quiet, then stale, then live again, and says for how long", () => {
  const { state, at } = stage(100);
  assert.equal(state.phase, "");
  state.told({ live: true, heard_at: null, last_line_at: iso(0) });
  assert.deepEqual([state.phase, state.says], ["live", ""]);
  at(25);
  state.told({ live: true, quiet: true, heard_at: iso(24), last_line_at: iso(0) });
  assert.deepEqual([state.phase, state.says], ["quiet", "no line for 25 s"]);
  at(64);
  state.told({ live: true, quiet: true, stale: true, heard_at: iso(24), last_line_at: iso(0) });
  assert.deepEqual([state.phase, state.says], ["stale", "nothing heard for 40 s"]);
  state.grew(164);
  assert.deepEqual([state.phase, state.says], ["live", ""]);
});

test("only the end of a session that was running is news", () => {
  const { state } = stage();
  const ended = { live: false, ended_at: iso(5), heard_at: iso(4), last_line_at: iso(4) };
  assert.equal(state.told(ended), false);
  assert.equal(state.phase, "ended");
  state.told({ live: true, heard_at: iso(6), last_line_at: iso(6) });
  assert.equal(state.told(ended), true);
  assert.equal(state.endedAt, T + 5000);
});

test("time passes while it is live, never backwards, and stops with what is heard", () => {
  const { state, at } = stage(10);
  state.told({ live: true, last_line_at: iso(0) });
  at(7);
  assert.equal(state.elapsed, 17);
  state.grew(15);  // its stamp is older than its arrival
  assert.equal(state.elapsed, 17);
  at(12);
  assert.equal(state.elapsed, 20);
  state.connected = false;
  at(60);
  assert.deepEqual([state.elapsed, state.says], [20, ""]);
  state.connected = true;
  state.told({ live: true, stale: true, heard_at: iso(20), last_line_at: iso(7) });
  assert.equal(state.elapsed, 28);
  state.told({ live: false, ended_at: iso(70), last_line_at: iso(7) });
  assert.equal(state.elapsed, 15);
});

test("the server's clock is the latest time that it named", () => {
  let own = 1000;
  const clock = new ServerClock(() => own);
  assert.equal(clock.now(), 1000);
  clock.hear(500_000);
  own = 2000;
  clock.hear(500_900);  // came late: says less than what is known
  clock.hear(null);
  clock.hear("no time");
  assert.equal(clock.now(), 501_000);
});

test("who else is watching, without oneself", () => {
  const says = (...people) => watchers({ people }, "alice");
  assert.equal(says("alice"), "");
  assert.equal(says("alice", "bob"), "bob is watching");
  assert.equal(says("bob", "carol"), "bob and carol are watching");
  assert.equal(says("bob", "carol", "dan", "eve"), "bob, carol, dan and eve are watching");
  assert.equal(says("bob", "carol", "dan", "eve", "finn"), "bob, carol, dan and 2 others are watching");
  assert.equal(watchers({}, "alice"), "");
});

test("words are provisional until the row of their role, a take-back, or fifteen seconds", () => {
  const timers = new Map();
  let next = 1, changes = 0;
  const speaking = new Speaking(() => changes++, {
    later: (run, ms) => { timers.set(next, { run, ms }); return next++; }, cancel: (id) => timers.delete(id),
  });
  const words = () => Object.fromEntries(speaking.words);
  speaking.say({ role: "user", text: "could" });
  speaking.say({ role: "user", text: "could you" });
  speaking.say({ role: "assistant", text: "Sure" });
  assert.deepEqual(words(), { user: "could you", assistant: "Sure" });
  assert.equal(timers.size, 2);
  speaking.rows([{ lane: "tool", role: "assistant" }]);
  assert.deepEqual(words(), { user: "could you", assistant: "Sure" });
  speaking.rows([{ lane: "user" }]);
  assert.deepEqual(words(), { assistant: "Sure" });
  const [{ run, ms }] = timers.values();
  assert.equal(ms, 15_000);
  run();
  assert.deepEqual([words(), timers.size], [{}, 0]);
  speaking.say({ role: "user", text: "no" });
  speaking.say({ role: "user", text: "" });
  assert.deepEqual(words(), {});
  const before = changes;
  speaking.rows([{ lane: "user" }]);
  assert.equal(changes, before);
});

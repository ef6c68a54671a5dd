import assert from "node:assert/strict";
import { test } from "node:test";

import { listen } from "../../static/js/live_socket.js";
import { neighbour, removable } from "../../static/js/live_wall.js";
import { createCard, fillCard, says } from "../../static/js/wall_card.js";
import { SPAN_MS, eventsOf, layout } from "../../static/js/wall_strip.js";
import { document } from "./mini_dom.js";

const NOW = Date.parse("2026-03-01T12:00:00Z");
const card = (more = {}) => ({
  id: "x", title: "A call", url: "/sessions/x/", agents: ["voice", "scout"], live: true, quiet: false, stale: false,
  failing: false, started_at: "2026-03-01T11:58:20Z", clock_ms: 0, heard_at: null, last_line_at: null, ended_at: null,
  last_role: "user", last_text: "close\u0007 it",
  counters: {
    user_turns: 1, assistant_turns: 2, tool_calls: 1234, tool_failures: 0, interruptions: 1, errors: 0, event_count: 1,
  },
  recent: { start: null, lanes: [], states: [], columns: { at_ms: [], lane: [], state: [], duration_ms: [] } },
  ...more,
});

test("a card says how long, who, what and how often", () => {
  const said = says(card(), NOW);
  assert.equal(said.phase, "live");
  assert.equal(said.elapsed, "1m 40s");
  assert.equal(said.agents, "voice, scout");
  assert.equal(said.text, "close\u2407 it");
  assert.deepEqual(said.counts, ["1 user 2 assistant", "1\u202f234 tools", "", "⌁ 1 interruption", "", "1 event"]);
});

test("silence has a word and a length, and stops the time of who may be gone", () => {
  const line = "2026-03-01T11:59:48Z", heard = "2026-03-01T11:59:20Z";
  const quiet = says(card({ quiet: true, last_line_at: line }), NOW);
  assert.deepEqual([quiet.phase, quiet.silence, quiet.elapsed], ["quiet", "no line for 12 s", "1m 40s"]);
  const stale = says(card({ stale: true, last_line_at: heard, heard_at: heard }), NOW);
  assert.deepEqual([stale.phase, stale.silence, stale.elapsed], ["stale", "nothing heard for 40 s", "1m 00s"]);
  const ended = says(card({ live: false, failing: true, ended_at: line }), NOW);
  assert.deepEqual([ended.phase, ended.failing, ended.elapsed], ["ended", "", "1m 28s"]);
});

test("a producer's clock that is three hours behind shortens no session", () => {
  assert.equal(says(card({ started_at: "2026-03-01T08:58:20Z", clock_ms: 3 * 3600e3 }), NOW).elapsed, "1m 40s");
});

test("a card is filled again without being made again", () => {
  const element = createCard(document);
  fillCard(element, card(), says(card(), NOW), "/sessions/x/");
  const badge = element.children[0].children[0];
  const failing = card({ failing: true });
  fillCard(element, failing, says(failing, NOW), "/sessions/x/?team=red");
  assert.equal(element.children[0].children[0], badge);
  assert.equal(element.className, "wall-card failing");
  assert.match(element.outerHTML, /✗ failing/);
  assert.match(element.outerHTML, /href="\/sessions\/x\/\?team=red"/);
});

const strip = (columns, more = {}) => eventsOf(card({
  recent: { start: "2026-03-01T11:59:00Z", lanes: ["assistant", "error", "interruption", "tool"], states: ["?", "failed"], columns },
  ...more,
}));

test("what happened stands on the strip where its time says, with the present at the right", () => {
  const events = strip({ at_ms: [0, 30_000, 1000, 0], lane: [0, 3, 2, 1], state: [null, 1, null, null], duration_ms: [null, 18_000, null, 5] });
  assert.deepEqual(events.map(({ at }) => at - NOW), [-60_000, -30_000, -29_000, -29_000]);
  const marks = layout(events, NOW, 180);  // a pixel is a second
  assert.deepEqual(marks.map(({ x, width, row, failed }) => [x, width, row, failed]), [
    [120, 3, 1, false], [150, 18, 2, true], [151, 3, -1, false], [151, 3, 3, true],
  ]);
  assert.equal(layout(events, NOW + SPAN_MS, 180).length, 0, "three minutes later all of it has moved off");
});

test("a call without an outcome reaches the present", () => {
  const events = strip({ at_ms: [0], lane: [3], state: [0], duration_ms: [null] });
  assert.deepEqual(layout(events, NOW, 180).map(({ x, width }) => [x, width]), [[120, 60]]);
  assert.deepEqual(layout(events, NOW + SPAN_MS, 180).map(({ x, width }) => [x, width]), [[0, 180]]);
});

test("a wrong clock is put right on the strip, and what it still has in the future stands at the edge", () => {
  const columns = { at_ms: [0], lane: [0], state: [null], duration_ms: [null] };
  assert.equal(layout(strip(columns, { clock_ms: 50_000 }), NOW, 180)[0].x, 170);
  assert.equal(layout(strip(columns, { clock_ms: 65_000 }), NOW, 180)[0].x, 177);
});

test("ended cards stay while somebody looks, and before the focused one until nobody does", () => {
  const over = [{ index: 1 }, { index: 4 }];
  const left = (focused, idle) => removable(over, focused, idle).map(({ index }) => index);
  assert.deepEqual(left(-1, 5000), []);
  assert.deepEqual(left(-1, 20_000), [1, 4]);
  assert.deepEqual(left(2, 20_000), [4]);
  assert.deepEqual(left(2, 400_000), [1, 4]);
});

test("arrows go to the neighbour in the grid", () => {
  const boxes = [[0, 0], [100, 0], [200, 0], [0, 50], [100, 50]].map(([left, top]) => ({ left, top }));
  const from = (now, key) => neighbour(boxes, now, `Arrow${key}`);
  assert.deepEqual([from(0, "Right"), from(0, "Left"), from(4, "Right")], [1, 0, 4]);
  assert.deepEqual([from(1, "Down"), from(2, "Down"), from(3, "Up"), from(0, "Up")], [4, 4, 0, 0]);
  assert.equal(from(-1, "Down"), 0);
  assert.equal(neighbour([], -1, "ArrowDown"), -1);
});

test("a lost or silent socket comes back by itself; a refused one does not", () => {
  const sockets = [], timers = [], heard = [], told = [];
  class WebSocket {
    constructor(url) { this.url = url; sockets.push(this); }
    close() { this.closed = true; }
  }
  const later = (run, ms) => timers.push({ run, ms });
  const cancel = (id) => { if (id) timers[id - 1].run = () => {}; };
  const on = { up: () => told.push("up"), down: () => told.push("down"), ended: (why) => told.push(why) };
  listen("/ws/live/", (message) => heard.push(message.type), { on, WebSocket, later, cancel, random: () => 0 });
  sockets[0].onopen();
  sockets[0].onmessage({ data: '{"type":"ping"}' });
  timers.at(-1).run();  // nothing for too long
  assert.ok(sockets[0].closed);
  timers.at(-1).run();
  sockets[1].onopen();
  sockets[1].onclose({ code: 1012 });
  timers.at(-1).run();
  sockets[2].onclose({ code: 4403 });
  assert.equal(sockets.length, 3);
  assert.deepEqual(heard, ["ping"]);
  assert.deepEqual(told, ["up", "down", "up", "down", "Your access was taken back."]);
});

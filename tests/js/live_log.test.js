import assert from "node:assert/strict";
import { test } from "node:test";
import { delay, follow } from "../../static/js/live_log.js";

/** Sockets, timers and rows of one reader; nothing waits for real time. */
function stage() {
  const sockets = [], timers = new Map(), rows = [], said = [];
  let next = 1;
  class Socket {
    readyState = 1;
    sent = [];
    constructor(url) { this.url = url; sockets.push(this); }
    send(text) { this.sent.push(JSON.parse(text)); }
    close() { this.closed = true; this.onclose?.({ code: 1000 }); }
    say(message) { this.onmessage({ data: JSON.stringify(message) }); }
    entries(...seqs) { this.say({ type: "entries", entries: seqs.map((seq) => ({ seq })), last_seq: seqs.at(-1), revision: 1 }); }
  }
  const on = Object.fromEntries(["up", "down", "ended", "gap", "skipped", "revision", "state", "deleted"]
    .map((name) => [name, (...args) => said.push([name, ...args])]));
  const stop = follow("ws://x/ws/sessions/a/", 10, (fresh) => rows.push(...fresh.map((r) => r.seq)), {
    on, WebSocket: Socket, random: () => 0.5,
    later: (run, ms) => { timers.set(next, { run, ms }); return next++; }, cancel: (id) => timers.delete(id),
  });
  const fire = (ms) => { for (const [id, timer] of timers) if (timer.ms === ms) { timers.delete(id); timer.run(); } };
  return { sockets, timers, rows, said, stop, fire };
}

test("rows come once and in order, and are acknowledged", () => {
  const { sockets, rows } = stage();
  assert.equal(sockets[0].url, "ws://x/ws/sessions/a/?after=10");
  sockets[0].entries(10, 11, 12);
  sockets[0].entries(12, 13);
  assert.deepEqual(rows, [11, 12, 13]);
  assert.deepEqual(sockets[0].sent, [{ ack: 12 }, { ack: 13 }]);
});

test("after a lost connection it goes on where it stopped", () => {
  const { sockets, rows, said, fire } = stage();
  sockets[0].entries(11);
  sockets[0].onclose({ code: 1006 });
  assert.deepEqual(said, [["down", 375]]);
  fire(375);
  assert.equal(sockets[1].url, "ws://x/ws/sessions/a/?after=11");
  sockets[1].entries(11, 12);
  assert.deepEqual(rows, [11, 12]);
});

test("pauses double, are bounded and never vanish", () => {
  assert.deepEqual([0, 1, 2, 30].map((n) => delay(n, () => 1)), [500, 1000, 2000, 15_000]);
  assert.equal(delay(30, () => 0), 7500);
});

test("a server that says nothing for twelve seconds is left", () => {
  const { sockets, fire } = stage();
  sockets[0].onopen();
  sockets[0].say({ type: "ping", last_seq: 10 });
  fire(12_000);
  assert.equal(sockets[0].closed, true);
  fire(375);
  assert.equal(sockets.length, 2);
});

test("a refusal is final and says why", () => {
  for (const code of [4400, 4401, 4403, 4404]) {
    const { sockets, said, timers } = stage();
    sockets[0].onclose({ code });
    assert.equal(said[0][0], "ended");
    assert.match(said[0][1], /\.$/);
    assert.equal(timers.size, 0);
  }
});

test("what was skipped or deleted moves the cursor and is told", () => {
  const { sockets, rows, said } = stage();
  sockets[0].say({ type: "skipped", from: 11, to: 5000 });
  sockets[0].say({ type: "gap", from: 5001, to: 5002 });
  sockets[0].entries(4999, 5003);
  assert.deepEqual(rows, [5003]);
  assert.deepEqual(said.map(([name]) => name), ["skipped", "gap"]);
  assert.deepEqual(sockets[0].sent.at(-1), { ack: 5003 });
});

test("a deleted session and a stopped reader do not come back", () => {
  const { sockets, said, timers, stop } = stage();
  sockets[0].say({ type: "deleted" });
  assert.equal(said[0][0], "deleted");
  assert.equal(sockets[0].closed, true);
  stop();
  stop.now();
  assert.equal(timers.size, 0);
  assert.equal(sockets.length, 1);
});

test("a socket that was given up cannot speak any more", () => {
  const { sockets, rows, fire } = stage();
  const late = sockets[0].onmessage;
  sockets[0].onclose({ code: 1006 });
  fire(375);
  late({ data: JSON.stringify({ type: "entries", entries: [{ seq: 11 }], last_seq: 11 }) });
  assert.deepEqual(rows, []);
});

test("a ping tells the revision, which may have risen before the socket was open", () => {
  const { sockets, said } = stage();
  sockets[0].say({ type: "ping", last_seq: 10, revision: 3 });
  assert.deepEqual(said.find(([name]) => name === "revision"), ["revision", 3]);
});

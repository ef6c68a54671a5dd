import assert from "node:assert/strict";
import { test } from "node:test";
import { delay, follow } from "../../static/js/live_log.js";

/** Sockets, timers and rows of one reader; nothing waits for real time. `more` goes to follow. */
function stage(more = {}) {
  const sockets = [], timers = new Map(), rows = [], said = [];
  const clock = { ms: 0 };
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
  const on = Object.fromEntries(["up", "down", "ended", "gap", "skipped", "behind", "revision", "state", "deleted"]
    .map((name) => [name, (...args) => said.push([name, ...args])]));
  const stop = follow("ws://x/ws/sessions/a/", 10, (fresh) => rows.push(...fresh.map((r) => r.seq)), {
    on, WebSocket: Socket, random: () => 0.5, now: () => clock.ms, ...more,
    later: (run, ms) => { timers.set(next, { run, ms }); return next++; }, cancel: (id) => timers.delete(id),
  });
  const fire = (ms) => { for (const [id, timer] of timers) if (timer.ms === ms) { timers.delete(id); timer.run(); } };
  return { sockets, timers, rows, said, stop, fire, clock };
}

const range = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => from + i);

/** Lets everything that has been promised happen. */
const settle = () => new Promise((done) => setImmediate(done));

test("rows come once and in order, and are acknowledged together two seconds later", () => {
  const { sockets, rows, fire } = stage();
  assert.equal(sockets[0].url, "ws://x/ws/sessions/a/?after=10");
  sockets[0].entries(10, 11, 12);
  sockets[0].entries(12, 13);
  assert.deepEqual(rows, [11, 12, 13]);
  assert.deepEqual(sockets[0].sent, []);
  fire(2000);
  assert.deepEqual(sockets[0].sent, [{ ack: 13 }]);
  fire(2000);
  assert.equal(sockets[0].sent.length, 1);
});

test("a quarter of the server's window is acknowledged at once, counted in rows or in characters", () => {
  const { sockets, fire } = stage();
  sockets[0].entries(...range(11, 73));
  assert.deepEqual(sockets[0].sent, []);
  sockets[0].entries(74);
  assert.deepEqual(sockets[0].sent, [{ ack: 74 }]);
  sockets[0].say({ type: "entries", entries: [{ seq: 75, text: "x".repeat(300_000) }] });
  assert.deepEqual(sockets[0].sent, [{ ack: 74 }, { ack: 75 }]);
  fire(2000);
  assert.equal(sockets[0].sent.length, 2);
});

test("nothing is acknowledged on a connection that it did not come by", () => {
  const { sockets, fire } = stage();
  sockets[0].entries(11);
  sockets[0].onclose({ code: 1006 });
  fire(375);
  fire(2000);
  assert.deepEqual([sockets[0].sent, sockets[1].sent], [[], []]);
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

test("a server that never answers the handshake is left too", () => {
  const { sockets, fire } = stage();
  fire(12_000);
  fire(375);
  assert.equal(sockets[0].closed, true);
  assert.equal(sockets.length, 2);
});

test("after a sleep that the timers slept too, the old connection is not waited for", () => {
  const { sockets, stop, clock } = stage();
  sockets[0].onopen();
  stop.now();
  assert.equal(sockets.length, 1);
  clock.ms = 3_600_000;
  stop.now();
  assert.equal(sockets.length, 2);
  assert.equal(sockets[0].closed, true);
});

test("what was skipped or deleted moves the cursor and is told", () => {
  const { sockets, rows, said, fire } = stage();
  sockets[0].say({ type: "skipped", from: 11, to: 5000 });
  sockets[0].say({ type: "gap", from: 5001, to: 5002 });
  sockets[0].entries(4999, 5003);
  assert.deepEqual(rows, [5003]);
  assert.deepEqual(said.map(([name]) => name), ["skipped", "gap"]);
  fire(2000);
  assert.deepEqual(sockets[0].sent, [{ ack: 5003 }]);
});

/** A `read` of pages of `size` rows of a log that has all seqs up to `last` but those in `missing`. */
function pages(last, { size = 500, missing = [] } = {}) {
  const asked = [];
  const read = async (after, { signal }) => {
    asked.push(after);
    await settle();
    signal.throwIfAborted();
    if (read.broken) throw new Error("answer 503");
    const there = range(after + 1, last).filter((seq) => !missing.includes(seq));
    return there.slice(0, size).map((seq) => ({ seq }));
  };
  return Object.assign(read, { asked });
}

async function until(condition) {
  for (let i = 0; i < 1000 && !condition(); i++) await settle();
  assert.ok(condition());
}

test("a skipped range is read page by page, and what comes live meanwhile waits for it", async () => {
  const read = pages(2000);
  const { sockets, rows, said } = stage({ read });
  sockets[0].say({ type: "skipped", from: 11, to: 1800 });
  sockets[0].entries(...range(1801, 2000));
  sockets[0].say({ type: "gap", from: 2001, to: 2002 });
  sockets[0].entries(2003);
  assert.deepEqual(rows, []);
  await until(() => rows.at(-1) === 2003);
  assert.deepEqual(rows, [...range(11, 2000), 2003]);
  assert.deepEqual(read.asked, [10, 510, 1010, 1510]);
  assert.deepEqual(said.map(([name, count]) => (name === "behind" ? count : name)), [1790, 1290, 790, 290, 0, "gap"]);
});

test("two ranges, holes in them, and rows that the page has by another way: all once, in order", async () => {
  const missing = [...range(30, 39), 100];
  const { sockets, rows, stop } = stage({ read: pages(300, { size: 20, missing }) });
  sockets[0].say({ type: "skipped", from: 11, to: 100 });
  sockets[0].entries(...range(101, 120));
  sockets[0].say({ type: "skipped", from: 121, to: 200 });
  sockets[0].entries(...range(201, 210));
  await until(() => rows.at(-1) === 210);
  assert.deepEqual(rows, range(11, 210).filter((seq) => !missing.includes(seq)));
  stop.seen(250);
  sockets[0].say({ type: "skipped", from: 211, to: 260 });
  await until(() => rows.at(-1) === 260);
  assert.deepEqual(rows.slice(-10), range(251, 260));
});

test("a connection lost while a range is read: the next one says what is missing, nothing comes twice", async () => {
  const read = pages(1000, { size: 100 });
  const { sockets, rows, fire } = stage({ read });
  sockets[0].say({ type: "skipped", from: 11, to: 1000 });
  await until(() => rows.length >= 300);
  sockets[0].entries(1001);
  sockets[0].onclose({ code: 1013 });
  const had = rows.length;
  await settle();
  await settle();
  assert.equal(rows.length, had);
  fire(375);
  assert.equal(sockets[1].url, `ws://x/ws/sessions/a/?after=${rows.at(-1)}`);
  sockets[1].say({ type: "skipped", from: rows.at(-1) + 1, to: 1000 });
  sockets[1].entries(1001);
  await until(() => rows.at(-1) === 1001);
  assert.deepEqual(rows, range(11, 1001));
});

test("a page that does not arrive is asked for again", async () => {
  const read = pages(100);
  read.broken = true;
  const { sockets, rows, timers, fire } = stage({ read });
  sockets[0].say({ type: "skipped", from: 11, to: 100 });
  await until(() => [...timers.values()].some(({ ms }) => ms === 375));
  read.broken = false;
  fire(375);
  await until(() => rows.at(-1) === 100);
  assert.deepEqual(rows, range(11, 100));
});

test("nothing is read for a page that was left", async () => {
  const read = pages(5000);
  const { sockets, rows, stop, timers } = stage({ read });
  sockets[0].say({ type: "skipped", from: 11, to: 5000 });
  stop();
  await settle();
  await settle();
  assert.deepEqual([rows.length, read.asked.length, timers.size], [0, 1, 0]);
});

test("a hole in the numbers is asked for anew, once: then it is believed", () => {
  const { sockets, rows, fire } = stage();
  sockets[0].entries(11, 12);
  sockets[0].entries(14, 15);
  assert.deepEqual(rows, [11, 12]);
  assert.equal(sockets[0].closed, true);
  fire(375);
  assert.equal(sockets[1].url, "ws://x/ws/sessions/a/?after=12");
  sockets[1].entries(14, 15);
  assert.deepEqual(rows, [11, 12, 14, 15]);
  assert.equal(sockets.length, 2);
});

test("rows that the server names and does not send are asked for anew", () => {
  const { sockets, rows, fire } = stage();
  sockets[0].say({ type: "ping", last_seq: 11 });
  sockets[0].say({ type: "ping", last_seq: 12 });
  sockets[0].entries(11, 12);
  for (const last of [13, 13]) sockets[0].say({ type: "ping", last_seq: last });
  assert.equal(sockets.length, 1);
  sockets[0].say({ type: "ping", last_seq: 14 });
  fire(375);
  assert.equal(sockets[1].url, "ws://x/ws/sessions/a/?after=12");
  sockets[1].entries(13, 14);
  sockets[1].say({ type: "ping", last_seq: 14 });
  assert.deepEqual(rows, [11, 12, 13, 14]);
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

import assert from "node:assert/strict";
import { test } from "node:test";

import { followStatus, postsOf } from "../../static/js/status_lane.js";

const clock = (date) => date.toISOString().slice(11, 19);
const answer = (seqs, more = {}) => ({
  bus: "b1", start: "2026-01-01T10:00:00Z", open: true, last_seq: seqs.at(-1) ?? 0, ...more,
  columns: {
    seq: seqs, at_ms: seqs.map((seq) => seq * 1000), agent: seqs.map(() => "exec"), state: seqs.map(() => "ok"),
    action: seqs.map(() => "open"), detail: seqs.map((seq) => (seq > 1 ? "the door" : "")),
  },
});

test("columns become posts that say what they are", () => {
  const [first, second] = postsOf(answer([1, 2]), clock);
  assert.equal(first.words, "status · exec · ok · 10:00:01: open");
  assert.deepEqual(second, {
    ms: Date.parse("2026-01-01T10:00:02Z"), agent: "exec", state: "ok", words: "status · exec · ok · 10:00:02: open the door",
    href: "/status/b1/?at=2#e2",
  });
});

/** Follow with these answers; returns what was asked, what was shown, and how the socket rings. */
async function followed(...answers) {
  globalThis.location = { href: "https://audit.example/sessions/s/" };
  const asked = [], shown = [], sockets = [];
  let ring;
  const fetch = async (url) => {
    asked.push(url);
    const json = answers.shift();
    return { ok: Boolean(json), status: 503, json: async () => json };
  };
  const listen = (url, seq, add) => { sockets.push([url, seq]); ring = add; };
  await followStatus("/s/status", (posts) => shown.push(posts.length), clock, { fetch, listen, later: (go) => go() });
  return { asked, shown, sockets, ring };
}

test("posts that come while the session runs are asked for behind the last one, also after a failure", async () => {
  const { asked, shown, sockets, ring } = await followed(answer([1, 2]), null, answer([5]));
  assert.deepEqual(sockets, [["wss://audit.example/ws/status/b1/", 2]]);
  await ring();
  assert.deepEqual(asked, ["/s/status?after=0", "/s/status?after=2", "/s/status?after=2"]);
  assert.deepEqual(shown, [2, 3]);
});

test("a session without a linked log, or one that is over, opens no socket", async () => {
  assert.deepEqual((await followed(answer([], { bus: null }))).sockets, []);
  assert.deepEqual((await followed(answer([1], { open: false }))).sockets, []);
});

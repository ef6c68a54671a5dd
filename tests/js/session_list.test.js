import assert from "node:assert/strict";
import { test } from "node:test";
import { Rounds, look } from "../../static/js/session_list.js";

/** Rounds on a clock that moves by hand; `looks` are the seconds at which it looked. */
function stage() {
  let now = 0, next = 1;
  const timers = new Map(), looks = [];
  const answers = { good: true };
  const rounds = new Rounds(async () => {
    looks.push(now / 1000);
    if (!answers.good) throw new Error("answer 503");
  }, {
    now: () => now, cancel: (id) => timers.delete(id),
    later: (run, ms) => { timers.set(next, { run, at: now + ms }); return next++; },
  });
  const until = async (second) => {
    for (;;) {
      const [id, timer] = [...timers].sort(([, a], [, b]) => a.at - b.at)[0];
      if (timer.at > second * 1000) break;
      now = timer.at;
      timers.delete(id);
      timer.run();
      await new Promise((done) => setImmediate(done));
    }
    now = second * 1000;
  };
  return { rounds, looks, until, answers };
}

test("without a bell the list is asked every two seconds, with one when it rings and else seldom", async () => {
  const { rounds, looks, until } = stage();
  await until(4);
  assert.deepEqual(looks, [2, 4]);
  rounds.bell(true);
  await until(15);
  assert.deepEqual(looks, [2, 4, 9, 14]);
  await until(17);
  rounds.ring();
  await until(17.5);
  assert.deepEqual(looks.slice(4), [17]);
  rounds.bell(false);
  await until(20);
  assert.deepEqual(looks.slice(4), [17, 19]);
});

test("however often it rings, the list is asked once a second, and once after the last ring", async () => {
  const { rounds, looks, until } = stage();
  rounds.bell(true);
  for (let tenth = 1; tenth <= 45; tenth++) {
    await until(tenth / 10);
    rounds.ring();
  }
  await until(9.9);
  assert.deepEqual(looks, [1, 2, 3, 4, 5]);
});

test("a server that does not answer is asked less and less often, and no ring changes that", async () => {
  const { rounds, looks, until, answers } = stage();
  answers.good = false;
  await until(30);
  rounds.ring();
  assert.deepEqual(looks, [2, 6, 14, 30]);
  answers.good = true;
  await until(64);
  assert.deepEqual(looks.slice(4), [60, 62, 64]);
});

test("an unchanged list is no news, a page that is none of ours is a failure", async () => {
  const asked = [];
  const answer = (status, more = {}) => async (url, { headers }) => {
    asked.push(headers["If-None-Match"]);
    return { status, ok: status < 300, headers: { get: () => '"b"' }, text: async () => "rows", ...more };
  };
  const state = { etag: '"a"' };
  assert.equal(await look("/", state, { fetch: answer(304) }), null);
  assert.equal(await look("/", state, { fetch: answer(200) }), "rows");
  await assert.rejects(look("/", state, { fetch: answer(503) }));
  await assert.rejects(look("/", state, { fetch: answer(200, { redirected: true }) }));
  assert.deepEqual(asked, ['"a"', '"a"', '"b"', '"b"']);
});

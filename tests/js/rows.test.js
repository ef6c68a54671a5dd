import assert from "node:assert/strict";
import { test } from "node:test";
import { Rows, ranges } from "../../static/js/rows.js";

const settled = () => new Promise((done) => setImmediate(done));

function server() {
  const asked = [];
  const fetch = (url, { signal }) => new Promise((answer, refuse) => {
    const request = { url, signal, give: (entries) => answer({ ok: true, json: async () => ({ entries }) }),
      refuse: (status) => answer({ ok: false, status }), drop: () => refuse(new TypeError("network")) };
    signal.addEventListener("abort", () => refuse(Object.assign(new Error("aborted"), { name: "AbortError" })));
    asked.push(request);
  });
  return { asked, fetch };
}

test("seqs are written as a set", () => {
  assert.equal(ranges([1, 2, 9, 5, 6, 7, 8]), "1-2,5-9");
  assert.equal(ranges([4]), "4");
  assert.equal(ranges([]), "");
});

test("only what is missing is asked for, and once", async () => {
  const { asked, fetch } = server();
  const arrived = [];
  const rows = new Rows("/t", { arrived: (r) => arrived.push(...r), fetch });
  rows.put([{ seq: 2 }]);
  rows.want([1, 2, 3]);
  rows.want([1, 2, 3]);
  assert.deepEqual(asked.map((a) => a.url), ["/t?seqs=1,3"]);
  asked[0].give([{ seq: 1 }, { seq: 3 }]);
  await settled();
  assert.deepEqual(arrived.map((r) => r.seq), [1, 3]);
  assert.equal(rows.get(3).seq, 3);
});

test("a request that nobody looks at any more is aborted", async () => {
  const { asked, fetch } = server();
  const rows = new Rows("/t", { arrived() {}, fetch });
  rows.want([1, 2]);
  rows.want([900, 901]);
  assert.equal(asked[0].signal.aborted, true);
  assert.equal(asked[1].signal.aborted, false);
  await settled();
});

test("the cache is bounded and forgets what was not looked at", () => {
  const rows = new Rows("/t", { arrived() {}, kept: 3 });
  rows.put([{ seq: 1 }, { seq: 2 }, { seq: 3 }]);
  rows.get(1);
  rows.put([{ seq: 4 }]);
  assert.equal(rows.get(2), undefined);
  assert.equal(rows.get(1).seq, 1);
});

test("a lost answer is asked for again, a refused one is not", async () => {
  const { asked, fetch } = server();
  const waits = [];
  const rows = new Rows("/t", { arrived() {}, fetch, later: (run) => waits.push(run) });
  rows.want([1]);
  asked[0].drop();
  await settled();
  assert.equal(waits.length, 1);
  waits[0]();
  asked[1].refuse(404);
  await settled();
  assert.equal(waits.length, 1);
});

import assert from "node:assert/strict";
import { test } from "node:test";

import {
  Cancelled, SLICE_BYTES, UploadError, backOff, begin, memoryKey, refusal, send, server, share, step, upload, watch,
} from "../../static/js/upload.js";

const MIB = 2 ** 20;

/** A file as far as the sender can tell; `slice` gives {from, to}. */
const aFile = (size, name = "call.jsonl") => ({ name, size, lastModified: 7, slice: (from, to) => ({ from, to }) });

function memory() {
  const kept = new Map();
  return { kept, getItem: (k) => kept.get(k) ?? null, setItem: (k, v) => kept.set(k, v), removeItem: (k) => kept.delete(k) };
}

const answer = (status, json, headers = {}) => ({
  ok: status < 400, status, text: async () => JSON.stringify(json), headers: { get: (name) => headers[name] ?? null },
});
const refused = (status, code, message, detail = {}) => answer(status, { error: { code, message, detail } });

/** A server that keeps one dump and behaves as the API says. `faults`: functions that may answer (or throw) first. */
function aServer({ faults = [], imports = ["queued", "importing", "done"] } = {}) {
  const it = { received: 0, size: 0, calls: [], finished: false, cancelled: false };
  it.fetch = async (url, { method, body, headers, signal }) => {
    it.calls.push(`${method} ${url}`);
    if (signal?.aborted) throw new DOMException("aborted", "AbortError");
    const fault = faults.shift();
    const early = fault?.({ url, method, body, it });
    if (early) return early;
    if (method !== "GET") assert.equal(headers["X-CSRFToken"], "token");
    if (method === "POST" && url.endsWith("/cancel")) { it.cancelled = true; return answer(200, { id: "d1", state: "cancelled" }); }
    if (method === "POST" && url.endsWith("/finish")) { it.finished = true; return answer(202, { id: "d1", state: "queued" }); }
    if (method === "POST") { it.size = JSON.parse(body).size; return answer(201, { id: "d1", url: "/dumps/d1/", received: 0 }); }
    if (method === "PUT") {
      const offset = Number(new URL(url, "http://x").searchParams.get("offset"));
      if (offset !== it.received) return refused(409, "offset", "wrong offset", { expected: it.received });
      assert.equal(body.from, offset);
      it.received = body.to;
      return answer(200, { received: it.received });
    }
    if (!it.finished) return answer(200, { id: "d1", state: "receiving", size: it.size, received: it.received });
    const state = imports.length > 1 ? imports.shift() : imports[0];
    return answer(200, { id: "d1", state, received: it.size, lines: 3, sessions: [], progress: state === "done" ? 1 : 0.5 });
  };
  return it;
}

const options = (it, more = {}) => ({ fetch: it.fetch, token: "token", later: (run, ms) => setTimeout(run, ms > 30_000 ? ms : 0), stop: clearTimeout, random: () => 0.5, store: memory(), ...more });

/** Run an upload to its end; resolves with the last state and all phases it went through. */
async function run(file, it, more) {
  let state = begin(file);
  const phases = [];
  await upload(file, (message) => {
    state = step(state, message);
    if (phases.at(-1) !== state.phase) phases.push(state.phase);
  }, options(it, more));
  return { state, phases };
}

test("a file goes in slices and is watched until it is read", async () => {
  const it = aServer();
  const { state, phases } = await run(aFile(9 * MIB), it);
  assert.deepEqual(it.calls.filter((call) => call.startsWith("PUT")), [
    "PUT /api/v1/dumps/d1/bytes?offset=0", `PUT /api/v1/dumps/d1/bytes?offset=${SLICE_BYTES}`, `PUT /api/v1/dumps/d1/bytes?offset=${2 * SLICE_BYTES}`,
  ]);
  assert.deepEqual(phases, ["sending", "queued", "reading", "done"]);
  assert.equal(state.dump.lines, 3);
  assert.equal(share(state), 1);
});

test("a slice whose answer was lost is not sent into the wrong place", async () => {
  // The server kept the slice, the answer never came; the sender asks again with the old offset and is told better.
  const it = aServer({ faults: [null, ({ it: s, body }) => { s.received = body.to; throw new TypeError("network"); }] });
  const { state } = await run(aFile(6 * MIB), it);
  assert.equal(state.phase, "done");
  assert.equal(it.received, 6 * MIB);
});

test("a lost connection is tried again and said, an endless one gives up with a way out", async () => {
  const lost = () => { throw new TypeError("network"); };
  const said = [];
  const it = aServer({ faults: [null, lost, lost] });
  await upload(aFile(5), (message) => said.push(message), options(it));
  assert.equal(said.filter(({ type }) => type === "trouble").length, 2);
  assert.equal(said.at(-1).dump.state, "done");

  const store = memory();
  const { state } = await run(aFile(5), aServer({ faults: [null, ...Array(50).fill(lost)] }), { store });
  assert.equal(state.phase, "failed");
  assert.match(state.error, /Drop the same file again/);
  assert.equal(store.kept.size, 1, "what was sent so far is remembered");
});

test("the same file goes on where it stopped after a reload", async () => {
  const file = aFile(9 * MIB), store = memory();
  store.setItem(memoryKey(file), "d1");
  const it = aServer();
  Object.assign(it, { size: file.size, received: SLICE_BYTES });
  const { state } = await run(file, it, { store });
  assert.equal(state.phase, "done");
  assert.equal(it.calls[0], "GET /api/v1/dumps/d1/");
  assert.equal(it.calls[1], `PUT /api/v1/dumps/d1/bytes?offset=${SLICE_BYTES}`);
  assert.equal(store.kept.size, 0);
});

test("an upload that the server forgot begins anew", async () => {
  const file = aFile(5), store = memory();
  store.setItem(memoryKey(file), "old");
  const it = aServer({ faults: [() => refused(404, "not_found", "Not found.")] });
  const { state } = await run(file, it, { store });
  assert.equal(state.phase, "done");
  assert.equal(it.calls[1].split(" ")[0], "POST");
});

test("a changed file with the same name is another upload", () => {
  assert.notEqual(memoryKey(aFile(5)), memoryKey({ ...aFile(5), lastModified: 8 }));
  assert.notEqual(memoryKey(aFile(5), "a"), memoryKey(aFile(5), "b"));
});

test("a refusal shows the server's own sentence and is not tried again", async () => {
  const it = aServer({ faults: [() => refused(413, "too_large", "A dump may have 2,147,483,648 bytes.")] });
  const { state } = await run(aFile(5), it);
  assert.equal(state.phase, "failed");
  assert.equal(state.error, "A dump may have 2,147,483,648 bytes.");
  assert.equal(it.calls.length, 1);
});

test("bytes that were there before are a duplicate, with the sessions of the first", async () => {
  const first = () => answer(200, { id: "d1", state: "done", duplicate: true });
  const it = aServer({ faults: [null, null, first] });
  it.finished = true;
  const { state } = await run(aFile(5), it, {});
  assert.equal(state.phase, "duplicate");
  assert.deepEqual(state.dump.sessions, []);
});

test("a duplicate whose answer was lost is asked for again", async () => {
  const it = aServer({ faults: [
    null, null,
    () => { throw new TypeError("network"); },  // the finish: the server has forgotten this dump, we do not hear of it
    () => refused(404, "not_found", "Nothing here."),
    ({ it: s }) => { s.received = 0; },
    null,
    () => answer(200, { id: "d0", state: "done", duplicate: true, lines: 3, sessions: [{ id: "s" }] }),
  ] });
  const { state } = await run(aFile(100), it);
  assert.equal(state.phase, "duplicate");
  assert.equal(it.calls.filter((call) => call.startsWith("PUT")).length, 2);
});

test("cancel stops the sending, tells the server and forgets the upload", async () => {
  const aborter = new AbortController(), store = memory();
  const it = aServer({ faults: [null, null, () => { aborter.abort(); throw new DOMException("aborted", "AbortError"); }] });
  const { state } = await run(aFile(9 * MIB), it, { signal: aborter.signal, store });
  assert.equal(state.phase, "cancelled");
  assert.equal(it.cancelled, true);
  assert.equal(store.kept.size, 0);
});

test("a server that takes nothing in is not asked for ever", async () => {
  const it = aServer({ faults: [null, ...Array(20).fill(({ method }) => method === "PUT" && refused(409, "offset", "This dump continues at byte 0.", { expected: 0 }))] });
  const { state } = await run(aFile(5), it);
  assert.equal(state.phase, "failed");
  assert.ok(it.calls.length < 12);
});

test("a busy server is given the time that it asks for", async () => {
  const waits = [];
  const it = aServer({ faults: [() => answer(503, {}, { "Retry-After": "3" })] });
  await send(aFile(5), () => {}, options(it, { later: (go, ms) => { if (ms < 30_000) waits.push(ms); return setTimeout(go, ms < 30_000 ? 0 : ms); } }));
  assert.deepEqual(waits, [3000]);
});

test("watching ends with a failed import and its reason", async () => {
  const it = aServer({ imports: ["importing", "failed"] });
  it.finished = true;
  let state = { ...begin(aFile(5)), phase: "queued" };
  await watch("d1", (message) => { state = step(state, message); }, options(it));
  assert.equal(state.phase, "failed");
  assert.equal(state.error, "The import failed.");
});

test("a request without an answer is given up and sent again", async () => {
  let calls = 0;
  const fetch = (url, { signal }) => new Promise((give, fail) => {
    calls += 1;
    if (calls > 1) give(answer(200, { ok: true }));
    else signal.addEventListener("abort", () => fail(new DOMException("aborted", "AbortError")));
  });
  const { ask } = server({ fetch, later: (run) => setTimeout(run, 0), random: () => 0.5 });
  assert.deepEqual(await ask("GET", "/x"), { ok: true });
  assert.equal(calls, 2);
});

test("an aborted wait ends at once", async () => {
  const aborter = new AbortController();
  const { sleep } = server({ fetch: null, signal: aborter.signal });
  const waiting = sleep(60_000);
  aborter.abort();
  await assert.rejects(waiting, Cancelled);
});

test("folders and empty files get a sentence", () => {
  assert.match(refusal(aFile(4096, "logs"), true), /is a folder/);
  assert.match(refusal(aFile(0)), /is empty/);
  assert.equal(refusal(aFile(1)), "");
});

test("pauses grow, vary and are bounded", () => {
  assert.equal(backOff(1, () => 1), 500);
  assert.equal(backOff(1, () => 0), 250);
  assert.ok(backOff(3, () => 0) > backOff(1, () => 1));
  assert.equal(backOff(50, () => 1), 20_000);
});

test("what is over stays over", () => {
  const over = step(begin(aFile(5)), { type: "cancelled" });
  assert.equal(step(over, { type: "dump", dump: { state: "done" } }), over);
});

test("that a file continued a dump is said once and remembered", () => {
  let state = step(begin(aFile(5)), { type: "dump", dump: { state: "queued", grown: true } });
  state = step(state, { type: "dump", dump: { state: "done", lines: 9, grown: false } });
  assert.deepEqual([state.phase, state.dump.grown, state.dump.lines], ["done", true, 9]);
});

test("an UploadError carries what the server said", () => {
  const error = new UploadError("no", { status: 409, code: "offset", detail: { expected: 3 } });
  assert.equal(error.detail.expected, 3);
});

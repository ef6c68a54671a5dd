/**
 * Sending one file to the server and watching it being read. No DOM here: upload_panel.js shows what `tell` is told.
 *
 * A file goes in slices, each at a stated offset, so that a slice sent twice is harmless and an upload goes on where it
 * stopped: after a lost connection by itself, after a reload when the same file is dropped again.
 */

export const SLICE_BYTES = 4 * 2 ** 20;  // half of the most that the server takes in one request
export const POLL_MS = 500;
const MOST_FAILURES = 10;  // in a row: about two minutes without an answer
const LONGEST_WAIT_MS = 20_000;
const SILENT_MS = 60_000;  // a request without an answer for so long is given up and sent again
const OVER = new Set(["done", "failed", "cancelled", "live"]);
const PHASE_OF = { receiving: "sending", queued: "queued", importing: "reading", live: "done", done: "done", failed: "failed", cancelled: "cancelled" };

/** A refusal by the server or a fault that no retry mends; `message` says what to do. */
export class UploadError extends Error {
  constructor(message, { status = 0, code = "", detail = {} } = {}) {
    super(message);
    Object.assign(this, { status, code, detail });
  }
}

/** The person pressed Cancel. */
export class Cancelled extends Error {}

/** A fresh row of the panel for `file`. Phases: waiting, sending, queued, reading, done, duplicate, failed, cancelled. */
export const begin = (file) => ({ name: file.name, size: file.size, phase: "waiting", sent: 0, trouble: "", error: "", dump: null });

/** The next state of an upload after a message; the only place where a phase changes. */
export function step(state, message) {
  if (["done", "duplicate", "failed", "cancelled"].includes(state.phase)) return state;
  switch (message.type) {
    case "sent":
      return { ...state, phase: "sending", sent: message.received, trouble: "" };
    case "trouble":
      return { ...state, trouble: message.sentence };
    case "dump": {
      const dump = { ...message.dump, grown: Boolean(message.dump.grown || state.dump?.grown) };  // said once, by finish
      const phase = dump.duplicate ? "duplicate" : PHASE_OF[dump.state] ?? state.phase;
      return { ...state, phase, dump, trouble: "", sent: Math.max(state.sent, dump.received ?? 0), error: phase === "failed" ? dump.error || "The import failed." : "" };
    }
    case "failed":
      return { ...state, phase: "failed", trouble: "", error: message.sentence };
    case "cancelled":
      return { ...state, phase: "cancelled", trouble: "" };
    default:
      return state;
  }
}

/** 0…1: of the bytes while sending, of the import afterwards; null when nothing is known yet. */
export function share(state) {
  if (state.phase === "waiting") return 0;
  if (state.phase === "sending") return state.size ? state.sent / state.size : 0;
  if (state.phase === "queued") return null;
  if (state.phase === "reading") return state.dump?.progress ?? null;
  return 1;
}

/** Why a file is not sent at all, or "". */
export function refusal(file, isFolder = false) {
  if (isFolder) return `${file.name} is a folder. Open it and drop the files that are in it.`;
  if (file.size === 0) return `${file.name} is empty (0 bytes), so there is nothing to import. Check that its program has written it to the end.`;
  return "";
}

/** Milliseconds before try number `failures` (from 1): doubling, jittered, bounded. */
export const backOff = (failures, random = Math.random) => Math.min(LONGEST_WAIT_MS, 500 * 2 ** (failures - 1)) * (0.5 + random() / 2);

/** The name under which an unfinished upload of this very file is remembered. */
export const memoryKey = (file, team = "") => `auditweb.upload|${team}|${file.name}|${file.size}|${file.lastModified}`;

/** Where unfinished uploads are remembered when the browser refuses to store anything. */
export const noStore = { getItem: () => null, setItem() {}, removeItem() {} };

/**
 * The server as this module needs it: `ask(method, url, {body, type})` → the JSON answer.
 *
 * Lost connections, 429 and 5xx are tried again with growing pauses (`onTrouble(sentence)` is told); any other refusal
 * throws UploadError with the server's own sentence; an aborted `signal` throws Cancelled.
 */
export function server({ fetch = globalThis.fetch, later = setTimeout, stop = clearTimeout, random = Math.random, token = "", signal, onTrouble = () => {} } = {}) {
  const sleep = (ms) => new Promise((wake, fail) => {
    const timer = later(done, ms);
    function done() { signal?.removeEventListener("abort", abort); wake(); }
    function abort() { stop(timer); fail(new Cancelled()); }
    if (signal?.aborted) abort();
    else signal?.addEventListener("abort", abort, { once: true });
  });

  async function once(method, url, { body, type }) {
    const limit = new AbortController();
    const quit = () => limit.abort();
    signal?.addEventListener("abort", quit, { once: true });
    const timer = later(quit, SILENT_MS);
    try {
      const headers = { Accept: "application/json" };
      if (method !== "GET") headers["X-CSRFToken"] = token;
      if (type) headers["Content-Type"] = type;
      const answer = await fetch(url, { method, headers, body, credentials: "same-origin", signal: limit.signal });
      const text = await answer.text();
      let json = null;
      try {
        json = JSON.parse(text);
      } catch {
        // A proxy's error page: its status says enough.
      }
      return { answer, json };
    } finally {
      stop(timer);
      signal?.removeEventListener("abort", quit);
    }
  }

  async function ask(method, url, { body, type } = {}) {
    for (let failures = 1; ; failures += 1) {
      if (signal?.aborted) throw new Cancelled();
      let got, wait = 0;
      try {
        got = await once(method, url, { body, type });
      } catch {
        if (signal?.aborted) throw new Cancelled();
      }
      if (got) {
        const { answer, json } = got;
        if (answer.ok && json) return json;
        const { code = "", message = "", detail = {} } = json?.error ?? {};
        if (answer.status < 500 && answer.status !== 429 && !answer.ok) throw new UploadError(message || sentenceFor(answer.status), { status: answer.status, code, detail: detail ?? {} });
        wait = 1000 * (Number(answer.headers?.get?.("Retry-After")) || 0);
      }
      if (failures >= MOST_FAILURES) {
        throw new UploadError("The server does not answer. Drop the same file again later: it goes on where it stopped.", { code: "unreachable" });
      }
      onTrouble(got ? "The server is busy; trying again…" : "Connection lost; trying again…");
      await sleep(Math.min(LONGEST_WAIT_MS, Math.max(wait, backOff(failures, random))));
    }
  }
  return { ask, sleep };
}

function sentenceFor(status) {
  if (status === 401 || status === 403) return "You are signed out or may not upload here. Sign in, then drop the file again.";
  if (status === 413) return "The file is larger than this server takes. Split it, or ask whoever runs the server to raise the limit.";
  return `The server refused the file (status ${status}).`;
}

/** The upload of this file that was begun before and waits for the rest, or null. */
async function unfinished(file, { ask, store, key, api }) {
  const id = store.getItem(key);
  if (!id) return null;
  try {
    const dump = await ask("GET", `${api}${id}/`);
    if (dump.state === "receiving" && dump.size === file.size) return dump;
  } catch (error) {
    if (!(error instanceof UploadError) || error.status !== 404) throw error;
  }
  store.removeItem(key);
  return null;
}

/**
 * Send `file` and resolve with the dump's JSON once the server has all of it (`duplicate: true` when it had it before).
 * `tell(message)` gets what `step` understands. Throws UploadError or Cancelled; a cancelled upload is cancelled there too.
 */
export async function send(file, tell, { api = "/api/v1/dumps/", team = "", store = noStore, again = false, ...options } = {}) {
  const { ask } = server({ ...options, onTrouble: (sentence) => tell({ type: "trouble", sentence }) });
  const key = memoryKey(file, team);
  let dump;
  try {
    dump = await unfinished(file, { ask, store, key, api });
    if (!dump) {
      const body = JSON.stringify(team ? { name: file.name, size: file.size, team } : { name: file.name, size: file.size });
      dump = await ask("POST", api, { body, type: "application/json" });
      if (dump.duplicate) return dump;
      store.setItem(key, dump.id);
    }
    let at = dump.received ?? 0;
    tell({ type: "sent", received: at });
    for (let setBacks = 0; ;) {
      try {
        while (at < file.size) {
          const body = file.slice(at, Math.min(file.size, at + SLICE_BYTES));
          const { received } = await ask("PUT", `${api}${dump.id}/bytes?offset=${at}`, { body, type: "application/octet-stream" });
          if (!(received > at)) throw new UploadError("The server did not keep what was sent. Drop the file again.", { code: "stuck" });
          at = received;
          setBacks = 0;
          tell({ type: "sent", received: at });
        }
        const answer = await ask("POST", `${api}${dump.id}/finish`);
        store.removeItem(key);
        return answer;
      } catch (error) {
        // An answer was lost on the way: the server says what it really has.
        const expected = error instanceof UploadError && error.status === 409 ? error.detail?.expected : undefined;
        if (error instanceof UploadError && error.status === 404 && at === file.size && !again) {
          // These bytes were there before: the server said so, forgot this dump, and its answer was lost.
          store.removeItem(key);
          return await send(file, tell, { api, team, store, again: true, ...options });
        }
        if (!Number.isInteger(expected) || expected > file.size || ++setBacks > 5) throw error;
        at = expected;
        tell({ type: "sent", received: at });
      }
    }
  } catch (error) {
    if (error instanceof UploadError && error.code !== "unreachable") store.removeItem(key);
    if (error instanceof Cancelled) {
      store.removeItem(key);
      if (dump) await cancel(dump.id, { api, ...options, signal: undefined });
    }
    throw error;
  }
}

/** Tell the server that nobody wants this dump any more; what it says is of no consequence to the person. */
export async function cancel(id, { api = "/api/v1/dumps/", ...options } = {}) {
  try {
    return await server({ ...options, signal: undefined }).ask("POST", `${api}${id}/cancel`);
  } catch {
    return null;  // finished in the meantime, or out of reach: the dump's page shows which
  }
}

/** Ask for the dump until it is done, failed or cancelled; each answer goes to `tell`. Resolves with the last one. */
export async function watch(id, tell, { api = "/api/v1/dumps/", ...options } = {}) {
  const { ask, sleep } = server({ ...options, onTrouble: (sentence) => tell({ type: "trouble", sentence }) });
  for (;;) {
    const dump = await ask("GET", `${api}${id}/`);
    tell({ type: "dump", dump });
    if (OVER.has(dump.state) || dump.state === "receiving") return dump;
    await sleep(POLL_MS);
  }
}

/** Everything for one file: refuse, send, watch. Never throws; the outcome is what `tell` heard last. */
export async function upload(file, tell, options = {}) {
  try {
    const dump = await send(file, tell, options);
    if (dump.duplicate) return tell({ type: "dump", dump: await whole(dump, options) });
    tell({ type: "dump", dump });
    await watch(dump.id, tell, options);
  } catch (error) {
    if (error instanceof Cancelled) tell({ type: "cancelled" });
    else tell({ type: "failed", sentence: error instanceof UploadError ? error.message : `The file could not be read: ${error.message}` });
  }
  return undefined;
}

// The answer to a duplicate may name no more than its id; the panel wants its sessions too.
async function whole(dump, { api = "/api/v1/dumps/", ...options }) {
  if (dump.sessions) return dump;
  return { ...(await server(options).ask("GET", `${api}${dump.id}/`)), duplicate: true };
}

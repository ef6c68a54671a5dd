/**
 * Following a log over its socket: every row once and in order, through lost connections, quiet servers and long absences.
 *
 * Rows are numbered without holes, those that are no more are named, and the server says how far the log is: so a reader
 * sees by itself that something is missing, and asks anew from where it stands.
 */

const SILENCE_MS = 12_000;  // the server pings every 5 s
const PINGS = 3;  // that name rows which do not come, before the connection is taken for broken
const ACK_ENTRIES = 64;  // a quarter of what the server sends without an answer
const ACK_CHARACTERS = 256 * 1024;  // the same of its mebibyte
const ACK_MS = 2000;  // answers of thousands of readers cost the server more than what it sends them
const FINAL = { 4400: "This address is not right.", 4401: "You are signed out.", 4403: "Your access was taken back.", 4404: "This session is gone." };

/** Milliseconds before attempt n (from 0): doubling from half a second to 15 s, the upper half of it by chance. */
export function delay(attempt, random = Math.random) {
  const most = Math.min(15_000, 500 * 2 ** Math.min(attempt, 10));
  return most / 2 + (most / 2) * random();
}

/**
 * Follow the log at `url` after `seq`: hand every new row to `add`, once and in order. Returns a stop function.
 *
 * `read(seq, {signal})` fetches a page of rows after `seq`, oldest first: what the server left out because we are far
 * behind is read so, and what it sends meanwhile waits. Without it the range is told as `skipped` and left out.
 *
 * `on`: what else is said, each optional: state(message), presence(message), provisional(message), revision(n) (also when
 * it did not change), gap({from, to}), skipped({from, to}), behind(rows still to read), deleted(), up(),
 * down(milliseconds until the next attempt), ended(sentence) when the server will not have us back.
 * A row may be handed over by the caller through `stop.seen(seq)`, when it was fetched some other way.
 */
export function follow(url, seq, add, {
  on = {}, read = null, WebSocket = globalThis.WebSocket, later = setTimeout, cancel = clearTimeout,
  random = Math.random, now = Date.now,
} = {}) {
  let socket, watch, waiting, attempt = 0, stopped = false, heardAt = 0;
  let held = null, reading = null;  // messages that wait while a range is read, and what ends the reading
  let doubted = -1, lag = { seq: -1, pings: 0 };  // where something was missing before: not asked for twice
  let owed = 0, weight = 0, owing = null;  // rows and characters that are not acknowledged, and when they will be
  const tell = (name, ...args) => on[name]?.(...args);

  function heard(mine) {
    cancel(watch);
    heardAt = now();
    watch = later(() => lost(mine, "silent"), SILENCE_MS);
  }

  function open() {
    const mine = (socket = new WebSocket(`${url}?after=${seq}`));
    heard(mine);  // a server that is stuck may never answer the handshake either
    mine.onopen = () => { heard(mine); tell("up"); };
    mine.onmessage = ({ data }) => {
      if (mine !== socket || stopped) return;
      attempt = 0;
      heard(mine);
      const message = JSON.parse(data);
      if (message.type === "entries") weight += data.length;
      if (held && ["entries", "gap", "skipped"].includes(message.type)) held.push(message);
      else take(message);
    };
    mine.onclose = ({ code } = {}) => lost(mine, code);
    mine.onerror = () => {};
  }

  function take(message) {
    if (message.type === "ping") {
      if (message.revision !== undefined) tell("revision", message.revision);
      if (!held && lags(message.last_seq)) return doubt();
    }
    if (message.type === "entries") {
      if (message.entries.find((row) => row.seq > seq)?.seq > seq + 1 && doubt()) return;
      took(message.entries, message);
      owe(message.entries.length);
    } else if (message.type === "skipped" && read) catchUp(socket, message.to);
    else if (message.type === "skipped" || message.type === "gap") {
      tell(message.type, message);
      seq = Math.max(seq, message.to);
    } else if (message.type === "revision") tell("revision", message.revision);
    else if (message.type === "deleted") { tell("deleted"); stop(); } else tell(message.type, message);
  }

  /** Whether the server has named rows behind ours for several pings and not sent one. */
  function lags(last) {
    lag = last > seq ? { seq, pings: lag.seq === seq ? lag.pings + 1 : 1 } : { seq, pings: 0 };
    return lag.pings >= PINGS;
  }

  /** Something is missing: ask anew, once at this place. Returns whether it is asked for. */
  function doubt() {
    if (doubted === seq) return false;
    doubted = seq;
    lost(socket, "silent");
    return true;
  }

  function took(rows, message) {
    const fresh = rows.filter((row) => row.seq > seq);
    if (!fresh.length) return;
    seq = fresh.at(-1).seq;
    add(fresh, message);
  }

  /** Read page by page up to `to`. A lost connection ends it: the next one says again what is missing. */
  async function catchUp(mine, to) {
    held = [];
    const { signal } = (reading = new AbortController());
    for (let failures = 0; seq < to;) {
      tell("behind", to - seq);
      try {
        const rows = await read(seq, { signal });
        if (signal.aborted) return;
        failures = 0;
        took(rows.filter((row) => row.seq <= to), {});
        if (!rows.length || rows.at(-1).seq >= to) seq = Math.max(seq, to);  // the rest was deleted
      } catch {
        if (signal.aborted) return;
        await new Promise((go) => { waiting = later(go, delay(failures++, random)); });
        if (signal.aborted) return;
      }
    }
    tell("behind", 0);
    const came = held;
    held = reading = null;
    for (const message of came) {
      if (mine !== socket) return;
      if (held) held.push(message);
      else take(message);
    }
  }

  function owe(rows) {
    owed += rows;
    if (owed >= ACK_ENTRIES || weight >= ACK_CHARACTERS) acknowledge();
    else owing ??= later(acknowledge, ACK_MS);
  }

  function acknowledge() {
    settle();
    if (socket?.readyState === 1) socket.send(JSON.stringify({ ack: seq }));
  }

  function settle() {
    cancel(owing);
    owing = null;
    owed = weight = 0;
  }

  function lost(mine, code) {
    if (mine !== socket || stopped) return;
    leave();
    socket = null;
    mine.onclose = mine.onmessage = null;
    if (code === "silent") mine.close();
    if (FINAL[code]) {
      stopped = true;
      return tell("ended", FINAL[code], code);
    }
    const pause = delay(attempt++, random);
    tell("down", pause);
    waiting = later(open, pause);
  }

  /** End all that belongs to this connection. */
  function leave() {
    cancel(watch);
    cancel(waiting);
    settle();
    reading?.abort();
    held = reading = null;
  }

  function stop() {
    stopped = true;
    leave();
    socket?.close();
  }

  open();
  stop.seen = (to) => { seq = Math.max(seq, to); };
  stop.now = () => {  // the network is back, or the tab is looked at again: do not wait out the pause
    if (stopped) return;
    if (socket && now() - heardAt > SILENCE_MS) lost(socket, "silent");  // timers slept as the machine did
    if (socket) return;
    cancel(waiting);
    open();
  };
  return stop;
}

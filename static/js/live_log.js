/**
 * Following a log over its socket: every row once and in order, through lost connections and quiet servers.
 */

const SILENCE_MS = 12_000;  // the server pings every 5 s
const FINAL = { 4400: "This address is not right.", 4401: "You are signed out.", 4403: "Your access was taken back.", 4404: "This session is gone." };

/** Milliseconds before attempt n (from 0): doubling from half a second to 15 s, the upper half of it by chance. */
export function delay(attempt, random = Math.random) {
  const most = Math.min(15_000, 500 * 2 ** Math.min(attempt, 10));
  return most / 2 + (most / 2) * random();
}

/**
 * Follow the log at `url` after `seq`: hand every new row to `add`, once and in order. Returns a stop function.
 *
 * `on`: what else is said, each optional: state(message), revision(n) (also when it did not change), gap({from, to}), skipped({from, to}), deleted(),
 * up(), down(milliseconds until the next attempt), ended(sentence) when the server will not have us back.
 * A row may be handed over by the caller through `stop.seen(seq)`, when it was fetched some other way.
 */
export function follow(url, seq, add, {
  on = {}, WebSocket = globalThis.WebSocket, later = setTimeout, cancel = clearTimeout, random = Math.random,
} = {}) {
  let socket, watch, waiting, attempt = 0, stopped = false;
  const tell = (name, ...args) => on[name]?.(...args);

  function heard(mine) {
    cancel(watch);
    watch = later(() => lost(mine, "silent"), SILENCE_MS);
  }

  function open() {
    const mine = (socket = new WebSocket(`${url}?after=${seq}`));
    mine.onopen = () => { heard(mine); tell("up"); };
    mine.onmessage = ({ data }) => {
      if (mine !== socket || stopped) return;
      attempt = 0;
      heard(mine);
      const message = JSON.parse(data);
      if (message.type === "ping" && message.revision !== undefined) tell("revision", message.revision);
      if (message.type === "entries") took(message);
      else if (message.type === "skipped" || message.type === "gap") {
        tell(message.type, message);
        reached(message.to);
      } else if (message.type === "revision") tell("revision", message.revision);
      else if (message.type === "deleted") { tell("deleted"); stop(); } else tell(message.type, message);
    };
    mine.onclose = ({ code } = {}) => lost(mine, code);
    mine.onerror = () => {};
  }

  function took(message) {
    const fresh = message.entries.filter((entry) => entry.seq > seq);
    if (fresh.length) {
      seq = fresh.at(-1).seq;
      add(fresh, message);
    }
    reached(seq);
  }

  function reached(to) {
    seq = Math.max(seq, to);
    if (socket.readyState === 1) socket.send(JSON.stringify({ ack: seq }));
  }

  function lost(mine, code) {
    if (mine !== socket || stopped) return;
    cancel(watch);
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

  function stop() {
    stopped = true;
    cancel(watch);
    cancel(waiting);
    socket?.close();
  }

  open();
  stop.seen = (to) => { seq = Math.max(seq, to); };
  stop.now = () => {  // the network is back, or the tab is looked at again: do not wait out the pause
    if (stopped || socket) return;
    cancel(waiting);
    open();
  };
  return stop;
}

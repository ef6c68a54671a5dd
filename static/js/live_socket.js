/**
 * A socket that tells the present state of things: it comes back by itself and is told everything anew.
 *
 * For what is followed entry by entry there is live_log.js.
 */
import { delay } from "./live_log.js";

const SILENCE_MS = 12_000;  // the server pings every 5 s
const FINAL = { 4401: "You are signed out.", 4403: "Your access was taken back.", 4404: "There is nothing here for you." };

/**
 * Hand every message from `url` to `take`. Returns a stop function; `stop.now()` does not wait out a pause.
 *
 * `on`, each optional: up(), down(milliseconds until the next attempt), ended(sentence) when the server will not have us.
 */
export function listen(url, take, {
  on = {}, WebSocket = globalThis.WebSocket, later = setTimeout, cancel = clearTimeout, random = Math.random,
} = {}) {
  let socket, watch, waiting, attempt = 0, stopped = false;

  function heard(mine) {
    cancel(watch);
    watch = later(() => lost(mine, "silent"), SILENCE_MS);
  }

  function open() {
    const mine = (socket = new WebSocket(url));
    heard(mine);  // a server that is stuck may never answer the handshake either
    mine.onopen = () => { heard(mine); on.up?.(); };
    mine.onmessage = ({ data }) => {
      if (mine !== socket || stopped) return;
      attempt = 0;
      heard(mine);
      take(JSON.parse(data));
    };
    mine.onclose = ({ code } = {}) => lost(mine, code);
    mine.onerror = () => {};
  }

  function lost(mine, code) {
    if (mine !== socket || stopped) return;
    cancel(watch);
    socket = null;
    mine.onclose = mine.onmessage = null;
    if (code === "silent") mine.close();
    if (FINAL[code]) {
      stopped = true;
      on.ended?.(FINAL[code]);
      return;
    }
    const pause = delay(attempt++, random);
    on.down?.(pause);
    waiting = later(open, pause);
  }

  open();
  const stop = () => {
    stopped = true;
    cancel(watch);
    cancel(waiting);
    socket?.close();
  };
  stop.now = () => {
    if (stopped || socket) return;
    cancel(waiting);
    open();
  };
  return stop;
}

/**
 * The posts of a status log beside a session, for the lane of the overview: those that are no events of its own.
 *
 * The server says which posts those are; the socket of the log only tells that there is something to ask for.
 */
import { follow } from "./live_log.js";

const GATHER_MS = 500;
const RETRY_MS = 5000;

/** The columns of an answer as [{ms, agent, state, words, href}], `ms` since the epoch; `clock(date)` says a time. */
export function postsOf({ bus, start, columns }, clock) {
  const from = Date.parse(start);
  return columns.seq.map((seq, i) => {
    const ms = from + columns.at_ms[i];
    const [agent, state, action, detail] = ["agent", "state", "action", "detail"].map((name) => columns[name][i]);
    const words = ["status", agent, state, clock(new Date(ms))].filter(Boolean).join(" · ");
    return { ms, agent, state, words: `${words}: ${action}${detail ? ` ${detail}` : ""}`, href: `/status/${bus}/?at=${seq}#e${seq}` };
  });
}

/** Hand the posts at `url` to `show`, all of them, now and whenever there are more. */
export async function followStatus(url, show, clock, { fetch = globalThis.fetch, listen = follow, later = setTimeout } = {}) {
  let posts = [], asking = false, again = false, last = 0;

  async function ask() {
    const answer = await fetch(`${url}?after=${last}`, { credentials: "same-origin" });
    if (!answer.ok) throw new Error(`answer ${answer.status}`);
    const json = await answer.json();
    last = json.last_seq;
    const fresh = postsOf(json, clock);
    if (fresh.length) show(posts = [...posts, ...fresh]);
    return json;
  }

  async function more() {
    again = true;
    if (asking) return;
    asking = true;
    while (again) {
      again = false;
      const failed = await ask().then(() => false, () => true);
      again ||= failed;
      await new Promise((go) => { later(go, failed ? RETRY_MS : GATHER_MS); });
    }
    asking = false;
  }

  const first = await ask().catch(() => null);  // the lane then shows the session's own posts
  if (!first?.bus || !first.open) return;
  const socket = new URL(`/ws/status/${first.bus}/`, location.href);
  socket.protocol = socket.protocol.replace("http", "ws");
  listen(socket.href, last, more, { on: { skipped: more } });
}

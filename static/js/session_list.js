/**
 * The sessions list keeps itself up to date: new sessions appear, running ones count on, focus and scroll stay.
 *
 * Asked every two seconds while the tab is looked at; an unchanged list answers 304 without a body. The socket of the Live
 * wall serves as a bell: while it is there the list is asked when something rang, and otherwise seldom.
 */
import { refresh } from "./clock.js";
import { listen } from "./live_socket.js";
import { morph } from "./morph.js";

const EVERY_MS = 2000;
const BELLED_MS = 5000;  // what is imported rings no bell
const LEAST_MS = 1000;
const LONGEST_MS = 30_000;
const HANDS_MS = 2000;  // so long after the pointer moved a row stays where it may be about to be clicked

/** One look: the new rows, or null when nothing changed. `state` keeps the ETag between looks. */
export async function look(url, state, { fetch = globalThis.fetch } = {}) {
  const headers = { Accept: "text/html", "X-Background": "1" };
  if (state.etag) headers["If-None-Match"] = state.etag;
  const answer = await fetch(url, { headers, credentials: "same-origin", cache: "no-store" });
  if (answer.status === 304) return null;
  if (!answer.ok || answer.redirected) throw new Error(`answer ${answer.status}`);
  state.etag = answer.headers.get("ETag");
  return answer.text();
}

/** When to look: now and then, soon after something rang, at most once a second, less and less often in vain. */
export class Rounds {
  /** `go()` looks; it returns a promise that fails when there was no answer. */
  constructor(go, { later = setTimeout, cancel = clearTimeout, now = Date.now } = {}) {
    Object.assign(this, { go, now });
    // The browser's own functions refuse to be called as methods of something else.
    this.later = (...args) => later(...args);
    this.cancel = (...args) => cancel(...args);
    this.failures = 0;
    this.belled = this.rung = this.away = false;
    this.at = now();
    this.#plan();
  }

  /** There is something to see. */
  ring() {
    this.rung = true;
    this.#plan();
  }

  /** Whether somebody rings when there is something to see. */
  bell(there) {
    this.belled = there;
    this.#plan();
  }

  #plan() {
    if (this.away) return;
    this.cancel(this.timer);
    let pause = this.rung ? LEAST_MS : this.belled ? BELLED_MS : EVERY_MS;
    if (this.failures) pause = Math.min(LONGEST_MS, EVERY_MS * 2 ** Math.min(this.failures, 5));
    this.timer = this.later(() => this.#look(), Math.max(0, this.at + pause - this.now()));
  }

  async #look() {
    this.away = true;
    this.rung = false;
    this.at = this.now();
    try {
      await this.go();
      this.failures = 0;
    } catch {
      this.failures++;
    }
    this.away = false;
    this.#plan();
  }
}

/** Bring the list up to date; with `still` no row comes, goes or moves, each only tells what is new of it. */
export function show(part, fresh, still) {
  const rows = part.querySelector("tbody"), news = fresh.querySelector("tbody");
  if (still && rows && news) {
    const byId = new Map([...news.children].map((row) => [row.id, row]));
    news.replaceChildren(...[...rows.children].map((row) => byId.get(row.id) ?? row.cloneNode(true)));
  }
  const focused = document.activeElement;
  morph(part, fresh);
  if (focused !== document.activeElement && part.contains(focused)) focused.focus({ preventScroll: true });
}

function start(part) {
  const state = { etag: part.dataset.etag };
  let moved = -Infinity, held = false;
  part.addEventListener("pointermove", () => { moved = performance.now(); }, { passive: true });
  const marked = () => { const range = getSelection(); return !range.isCollapsed && part.contains(range.anchorNode); };
  const rounds = new Rounds(async () => {
    if (document.hidden) return;
    if (held) state.etag = null;  // what it stands for was not shown whole
    const text = await look(part.dataset.rowsUrl, state);
    const fresh = text && new DOMParser().parseFromString(text, "text/html").getElementById(part.id);
    if (!fresh) return;
    refresh(fresh);  // times first, so that comparing does not undo them
    held = performance.now() - moved < HANDS_MS || marked();
    show(part, fresh, held);
  });
  const ring = () => rounds.ring();
  document.addEventListener("visibilitychange", () => { if (!document.hidden) ring(); });
  document.addEventListener("auditweb:look", ring);
  const url = new URL(part.dataset.bell, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  const news = new Set(["sessions", "session", "ended", "gone"]);
  const bell = listen(url.href, ({ type }) => { if (news.has(type)) ring(); }, {
    on: { up: () => rounds.bell(true), down: () => rounds.bell(false), ended: () => rounds.bell(false) },
  });
  addEventListener("online", () => bell.now());
}

const part = globalThis.document?.querySelector("[data-rows-url]");
if (part) start(part);

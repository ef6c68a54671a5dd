/**
 * The page of a status log, live: its socket tells that something was posted, the server draws what it changed.
 *
 * `data-feed` on the list is the address of this view of it (filters included), `data-after` the last `seq` known,
 * `data-socket` the socket, `data-now` the server's clock in milliseconds. While somebody reads further down, or has
 * paused, nothing moves: new entries are counted.
 */
import { refresh } from "./clock.js";
import { follow } from "./live_log.js";
import { numberText } from "./live_state.js";
import { morph } from "./morph.js";
import { tick } from "./pending.js";

const GATHER_MS = 500;  // between two answers that the server draws
const RETRY_MS = 5000;
const MOST_ROWS = 500;  // in the list; older ones are a link away

/** Where a row with this place in time goes among `rows` (newest first): the index of the row that it stands before. */
export function placeOf(row, rows) {
  const at = Number(row.dataset.at), seq = Number(row.dataset.seq);
  return rows.findIndex((other) => {
    const otherAt = Number(other.dataset.at);
    return otherAt < at || (otherAt === at && Number(other.dataset.seq) < seq);
  });
}

/**
 * Put rows into the list in order, once each: one that is there already is brought up to date, one that is not and has a
 * seq up to `after` belongs to another page. Returns how many were new.
 */
export function insert(list, fresh, after = 0, change = morph) {
  let added = 0;
  for (const row of fresh) {
    const rows = [...list.children];
    const old = rows.find((one) => one.dataset.seq === row.dataset.seq);
    if (old) change(old, row);
    else if (Number(row.dataset.seq) > after) {
      const index = placeOf(row, rows);
      if (index < 0) list.append(row);
      else list.insertBefore(row, rows[index]);
      added += 1;
    }
  }
  return added;
}

/** The address that answers what came after `seq`, filters kept. */
export function askFor(address, seq) {
  const url = new URL(address, "http://any.invalid");
  url.searchParams.delete("cursor");
  url.searchParams.set("after", seq);
  url.searchParams.set("fragment", "1");
  return url.pathname + url.search;
}

/** Whether an entry of the socket is one of those that the feed shows; `filters`: {agent, status, words}. */
export function passes(entry, { agent = "", status = "", words = "" }) {
  const found = `${entry.action}\n${entry.detail}`.toLowerCase();
  return (!agent || entry.agent_id === agent) && (!status || entry.status === status) && found.includes(words.toLowerCase());
}

class StatusFeed {
  constructor(list) {
    this.list = list;
    this.after = Number(list.dataset.after);
    this.paused = false;
    this.waiting = [];  // seqs of entries that were posted and are not shown
    this.button = document.querySelector("[data-feed-pause]");
    this.says = document.querySelector("[data-feed-says]");
    this.pill = document.querySelector("[data-feed-pill]");
  }

  start() {
    const url = new URL(this.list.dataset.socket, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    this.stop = follow(url.href, this.after, (rows) => this.#posted(rows), {
      on: {
        up: () => { if (this.wasDown) this.#say("Connected again."); this.wasDown = false; this.#soon(); },
        down: () => { this.wasDown = true; this.#say("The connection was lost; coming back by itself."); },
        ended: (sentence) => this.#say(`${sentence.replace("session", "log")} Load the page again.`),
        skipped: () => this.#soon(),
        revision: (revision) => { if (revision !== Number(this.list.dataset.revision)) location.reload(); },
        deleted: () => this.#say("This log was deleted."),
      },
    });
    addEventListener("online", () => this.stop.now());
    document.addEventListener("visibilitychange", () => { if (!document.hidden) { this.stop.now(); this.#soon(); } });
    addEventListener("scroll", () => { if (this.waiting.length && !this.#held()) this.#soon(); }, { passive: true });
    this.button.addEventListener("click", () => this.#pause(!this.paused));
    this.pill.addEventListener("click", () => {
      if (this.paused) this.#pause(false);
      this.list.scrollIntoView({ block: "center" });
      this.#soon();
    });
  }

  #pause(on) {
    this.paused = on;
    this.button.setAttribute("aria-pressed", String(on));
    this.button.textContent = on ? "Follow" : "Pause";
    this.#say(on ? "Paused: new entries wait." : "");
    this.#soon();
  }

  /** Whether new rows would move what somebody reads. */
  #held() {
    const newest = this.list.firstElementChild;
    return this.paused || (newest !== null && newest.getBoundingClientRect().bottom < 0);
  }

  #posted(rows) {
    // An answer may have been faster than the socket.
    const fresh = rows.filter((row) => row.seq > this.after && passes(row, { ...this.list.dataset }));
    this.waiting.push(...fresh.map((row) => row.seq));
    this.#soon();
  }

  /** Ask what is new, at most every GATHER_MS; while the page is held, say how much is. */
  #soon() {
    const { length } = this.waiting;
    this.pill.hidden = !(length && this.#held());
    if (length) this.pill.textContent = `${length} new ↑`;
    if (this.asking || document.hidden || this.#held()) return;
    this.asking = true;
    this.#look().then((more) => {
      setTimeout(() => { this.asking = false; if (more || this.waiting.length) this.#soon(); }, more ? 0 : GATHER_MS);
    }, () => {
      this.#say("No answer from the server; trying again…");
      setTimeout(() => { this.asking = false; this.#soon(); }, RETRY_MS);
    });
  }

  async #look() {
    const answer = await fetch(askFor(this.list.dataset.feed, this.after), { headers: { "X-Background": "1" }, credentials: "same-origin" });
    if (!answer.ok || answer.redirected) throw new Error(`${answer.status}`);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    refresh(page);
    const part = page.getElementById("feed-news");
    const added = insert(this.list, [...part.children].map((row) => document.adoptNode(row)), this.after);
    this.after = Math.max(this.after, Number(part.dataset.after));
    this.stop?.seen(this.after);
    this.waiting = this.waiting.filter((seq) => seq > this.after);
    this.pill.hidden = true;
    this.#trim();
    for (const counter of page.querySelectorAll("[data-count]")) {
      const shown = document.querySelector(`main [data-count="${counter.dataset.count}"]`);
      if (shown && shown.textContent !== counter.textContent) shown.textContent = counter.textContent;
    }
    for (const id of ["agent-lanes", "recent-text"]) {
      const shown = document.getElementById(id), fresh = page.getElementById(id);
      if (shown && fresh) morph(shown, fresh);
    }
    if (added) {
      const matching = document.querySelector("[data-matching]");
      matching.dataset.matching = Number(matching.dataset.matching) + added;
      matching.textContent = numberText(Number(matching.dataset.matching));
      document.querySelector("[data-shown]").textContent = numberText(this.list.children.length);
      document.querySelector("[data-feed-empty]")?.remove();
      this.#say(added === 1 ? "1 new entry" : `${added} new entries`);
      document.dispatchEvent(new Event("auditweb:look"));
    }
    return Boolean(part.dataset.more);
  }

  /** Keep the list short: what falls off its end is where the link to older entries leads. */
  #trim() {
    const { children } = this.list;
    if (children.length <= MOST_ROWS) return;
    const first = children[MOST_ROWS].dataset.seq;
    while (children.length > MOST_ROWS) this.list.lastElementChild.remove();
    const older = document.querySelector(".pager a[rel=next]");
    if (!older) return;
    const url = new URL(older.href);
    url.searchParams.delete("cursor");
    url.searchParams.set("at", first);
    older.href = url.href;
  }

  #say(sentence) {
    this.says.textContent = sentence;
  }
}

const list = globalThis.document?.querySelector(".feed[data-now]");
if (list) {
  const ahead = Number(list.dataset.now) - Date.now();  // of the server's clock before ours
  setInterval(() => { if (!document.hidden) tick(document, Date.now() + ahead); }, 1000);
  if (list.dataset.feed) new StatusFeed(list).start();
}

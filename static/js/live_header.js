/**
 * What the header of a session says of its being alive: live, quiet, stale or ended, for how long, and who else is watching.
 *
 * The server writes the same elements for the page without scripts; from then on they are this module's own (`data-own`),
 * and the header that is asked for again leaves them alone.
 */
import { clock, exact, zone } from "./clock.js";
import { LiveState, durationText, watchers } from "./live_state.js";

const TICK_MS = 1000;
const WORDS = { live: "LIVE", quiet: "quiet", stale: "stale", ended: "ended" };

export class LiveHeader {
  /** `head` is the header, `me` the name that its viewer has among the watchers. */
  constructor(head, me, { every = setInterval, never = clearInterval } = {}) {
    Object.assign(this, { head, me });
    this.every = (...args) => every(...args);
    this.never = (...args) => never(...args);
    const part = (name) => head.querySelector(`#session-${name}`);
    this.badge = part("state");
    this.words = part("words");
    this.duration = part("duration");
    this.watchers = part("watchers");
    this.state = new LiveState();
    this.state.clock.hear(head.dataset.now);
    const { isLive, updated, heard, ended } = this.badge.dataset;
    const was = (word) => this.badge.classList.contains(word);
    for (const element of [this.badge, this.words, this.watchers]) element.dataset.own = "";
    delete this.badge.dataset.running;  // the socket says when there is something to ask for
    this.told({
      live: isLive === "true", quiet: was("quiet"), stale: was("stale"),
      ended_at: ended, heard_at: heard, last_line_at: updated,
    });
    document.addEventListener("auditweb:zone", () => this.#draw());
  }

  get live() {
    return this.state.live;
  }

  /** A `state` message; returns whether the session ended by it. */
  told(message) {
    this.state.clock.hear(this.head.dataset.now);
    const ended = this.state.told(message);
    this.#draw();
    return ended;
  }

  /** The session is `seconds` long by its events (NaN: nobody knows). */
  long(seconds) {
    this.state.seconds = seconds;
    this.#draw();
  }

  /** Lines came, with which it is `seconds` long. */
  grew(seconds) {
    this.state.grew(seconds);
    this.#draw();
  }

  /** Whether we hear of it at all. */
  connected(on) {
    this.state.connected = on;
    this.badge.classList.toggle("unheard", !on);
    this.#draw();
  }

  /** A `presence` message. */
  watching(message) {
    put(this.watchers, watchers(message, this.me));
  }

  #draw() {
    const { state } = this;
    const { phase } = state;
    if (this.phase !== phase) {
      for (const one of Object.keys(WORDS)) this.badge.classList.toggle(one, one === phase);
      put(this.badge, WORDS[phase] ?? "");
      this.badge.hidden = !phase;
      this.phase = phase;
    }
    if (phase === "ended") this.#end();
    else put(this.words, state.says);
    const { elapsed } = state;
    const ticking = state.live && elapsed === elapsed;
    if (ticking) put(this.duration, durationText(elapsed));
    this.duration.toggleAttribute("data-own", ticking);
    if (state.live && !this.timer) this.timer = this.every(() => { if (!document.hidden) this.#draw(); }, TICK_MS);
    if (!state.live && this.timer) this.timer = this.never(this.timer);
  }

  #end() {
    const at = new Date(this.state.endedAt);
    const time = this.words.querySelector("time") ?? document.createElement("time");
    time.setAttribute("datetime", at.toISOString());
    time.dataset.time = "clock";
    time.title = exact(at);
    put(time, clock(at, zone()));
    if (!time.isConnected) this.words.replaceChildren(time);
  }
}

/** Only what differs is touched: a part that stays as it is costs nothing. */
function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

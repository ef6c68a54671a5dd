/**
 * How a running session is doing, in words: live, quiet, stale or ended, for how long, and who looks at it.
 *
 * Times are of the server's clock; ours may be wrong by hours and is only trusted to tick.
 */

/** The server's clock, as far as it can be told from the times it names: it is never before one of them. */
export class ServerClock {
  #ahead = -Infinity;  // ms

  constructor(now = Date.now) {
    this.own = now;
  }

  /** The server named `time` (ISO text or milliseconds), which lies behind us; what is no time is passed over. */
  hear(time) {
    const ms = typeof time === "number" ? time : Date.parse(time ?? "");
    if (ms === ms) this.#ahead = Math.max(this.#ahead, ms - this.own());
  }

  now() {
    return this.own() + (this.#ahead === -Infinity ? 0 : this.#ahead);
  }
}

/** `40 s`, `1m 40s`, `1h 02m`, `3d 4h`: as `duration` in auditweb/templatetags/words.py, without tenths. */
export function durationText(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const two = (n) => String(n).padStart(2, "0");
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}m ${two(whole % 60)}s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)}h ${two(Math.floor((whole % 3600) / 60))}m`;
  return `${Math.floor(whole / 86400)}d ${Math.floor((whole % 86400) / 3600)}h`;
}

/** `41 302`: as `number` in auditweb/templatetags/words.py. */
export const numberText = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, "\u202f");

const msOf = (time) => (time ? Date.parse(time) : NaN);
const latest = (...times) => Math.max(-Infinity, ...times.filter((ms) => ms === ms));

export class LiveState {
  #shown = 0;  // seconds; what ticks never goes back

  /** `seconds`: how long the session is by its events. */
  constructor({ clock = new ServerClock(), seconds = 0 } = {}) {
    this.clock = clock;
    this.seconds = seconds;
    this.live = this.quiet = this.stale = false;
    this.lineAt = this.heardAt = this.endedAt = NaN;
    this.connected = true;
  }

  /** A `state` message: `{live, quiet, stale, ended_at, heard_at, last_line_at}`. Returns whether the session ended by it. */
  told({ live, quiet = false, stale = false, ended_at: ended, heard_at: heard, last_line_at: line }) {
    const was = this.live;
    for (const time of [heard, line]) this.clock.hear(time);
    Object.assign(this, { live: Boolean(live), quiet, stale });
    this.endedAt = msOf(ended);
    this.lineAt = latest(this.lineAt, msOf(line));
    this.heardAt = latest(msOf(heard), this.lineAt);
    if (!this.live) this.#shown = 0;
    return was && !this.live;
  }

  /** Lines came just now; with them the session is `seconds` long. */
  grew(seconds) {
    this.seconds = seconds;
    this.lineAt = this.heardAt = this.clock.now();
    this.quiet = this.stale = false;
  }

  /** "live", "quiet" (heard of, but no line), "stale" (not heard of), "ended"; "" for a session that never was live. */
  get phase() {
    if (!this.live) return this.endedAt === this.endedAt ? "ended" : "";
    return this.stale ? "stale" : this.quiet ? "quiet" : "live";
  }

  /** What stands beside the word: "no line for 25 s". Empty while nothing is missing, or while we could not know. */
  get says() {
    if (!this.connected) return "";
    const since = (ms) => durationText((this.clock.now() - ms) / 1000);
    if (this.phase === "quiet" && this.lineAt > 0) return `no line for ${since(this.lineAt)}`;
    if (this.phase === "stale" && this.heardAt > 0) return `nothing heard for ${since(this.heardAt)}`;
    return "";
  }

  /** Seconds from the first event until now; until its producer was last heard when that is gone; NaN when unknown. */
  get elapsed() {
    if (!this.live || !(this.lineAt > 0)) return this.seconds;
    const until = this.phase === "stale" || !this.connected ? this.heardAt : this.clock.now();
    this.#shown = Math.max(this.#shown, this.seconds + Math.max(0, until - this.lineAt) / 1000);
    return this.#shown;
  }
}

const NAMED = 3;  // people

/** "bob is watching", "bob, carol, dan and 3 others are watching"; "" when nobody but `me` is. */
export function watchers({ people = [] }, me = "") {
  const names = people.filter((name) => name !== me);
  if (!names.length) return "";
  const more = names.length - NAMED;
  const said = more > 1 ? [...names.slice(0, NAMED), `${more} others`] : names;
  const last = said.pop();
  return said.length ? `${said.join(", ")} and ${last} are watching` : `${last} is watching`;
}

const FORGOTTEN_MS = 15_000;  // a producer that fell silent in the middle of a sentence

/** What is being said right now and is no line yet: the newest words of each role, until they are final. */
export class Speaking {
  /** `changed()` is called when `words` are other ones. */
  constructor(changed, { later = setTimeout, cancel = clearTimeout } = {}) {
    this.words = new Map();  // role → text
    this.timers = new Map();
    this.changed = changed;
    // The browser's own functions refuse to be called as methods of something else.
    this.later = (...args) => later(...args);
    this.cancel = (...args) => cancel(...args);
  }

  /** A `provisional` message; one without text takes the words back. */
  say({ role, text }) {
    if (!text) return this.forget([role]);
    this.cancel(this.timers.get(role));
    this.timers.set(role, this.later(() => this.forget([role]), FORGOTTEN_MS));
    this.words.set(role, text);
    this.changed();
  }

  /** Rows came: words whose final form is among them are no more. */
  rows(rows) {
    if (this.words.size) this.forget(rows.map((row) => row.lane));  // a tool call has a role too, yet says nothing
  }

  forget(roles = [...this.words.keys()]) {
    let fewer = false;
    for (const role of roles) {
      this.cancel(this.timers.get(role));
      this.timers.delete(role);
      fewer = this.words.delete(role) || fewer;
    }
    if (fewer) this.changed();
  }
}

/**
 * The outline of a whole session as columns: what the overview draws and the scroller measures.
 *
 * Rows stand in display order; `index` is a position in that order, `seq` the number of the event. Unknown times are
 * NaN. The columns are typed arrays with spare room at the end, so that a live session grows without copying.
 */
import { isFailure, stageOf, stateOf } from "./row.js";

const UNKNOWN = 0xffff;  // "no agent", "no state" in the index columns
// An attempt has the state "→ " with what its call came to, "→ ?" without an outcome: as sessions_app/outline.py.
const ATTEMPT = "→ ", OPEN = "→ ?";

export class Outline {
  /** `json`: the answer of /api/v1/sessions/<id>/outline. */
  constructor(json) {
    const columns = json.columns;
    this.lanes = [...json.lanes];
    this.agents = [...json.agents];
    this.states = [...json.states];
    this.revision = json.revision;
    this.lastSeq = json.last_seq;
    this.start = json.start ? Date.parse(json.start) : NaN;
    this.length = columns.seq.length;
    this.#reserve(Math.max(64, this.length + (this.length >> 2)));
    undelta(columns.seq, this.seq);
    undelta(columns.at_ms, this.at);
    for (const name of ["lane", "agent", "state"]) {
      const to = this[name];
      columns[name].forEach((value, i) => { to[i] = value ?? UNKNOWN; });
    }
    columns.duration_ms.forEach((value, i) => { this.duration[i] = value ?? NaN; });
    this.span = 0;  // milliseconds from `start` to the latest known end
    this.earliest = 0;  // below zero when a row arrived live that is older than the start
    const tool = this.lanes.indexOf("tool");
    for (let i = 0; i < this.length; i++) {
      const atEnd = this.lane[i] === tool && !this.isAttempt(i);
      this.stamp[i] = this.at[i] + (atEnd ? this.duration[i] || 0 : 0);
    }
    this.place = new Map();
    this.#places(0);
    this.#gaps(0);
    this.#reach(0);
  }

  #reserve(size) {
    const grown = (old, Type) => {
      const made = new Type(size);
      if (old) made.set(old.subarray(0, this.length));
      return made;
    };
    this.seq = grown(this.seq, Uint32Array);
    this.at = grown(this.at, Float64Array);  // milliseconds since `start`
    this.duration = grown(this.duration, Float32Array);
    this.lane = grown(this.lane, Uint16Array);
    this.agent = grown(this.agent, Uint16Array);
    this.state = grown(this.state, Uint16Array);
    this.stamp = grown(this.stamp, Float64Array);  // what display order goes by; a call of one line is stamped at its end
    this.gap = grown(this.gap, Float32Array);  // milliseconds a reply took; NaN elsewhere
  }

  /** Rows from index `from` on stand where they stand now. */
  #places(from) {
    for (let i = from; i < this.length; i++) this.place.set(this.seq[i], i);
  }

  /** The position of an event in display order, or -1. */
  indexOf(seq) {
    return this.place.get(seq) ?? -1;
  }

  laneName(index) {
    return this.lanes[this.lane[index]] ?? "other";
  }

  agentName(index) {
    return this.agents[this.agent[index]] ?? "";
  }

  stateName(index) {
    return this.states[this.state[index]] ?? "";
  }

  /** Whether a row is an attempt whose outcome is a row of its own. */
  isAttempt(index) {
    return this.stateName(index).startsWith(ATTEMPT.trimEnd());
  }

  /** Whether a row is an attempt that no outcome is known of. */
  isOpen(index) {
    return this.stateName(index) === OPEN;
  }

  /** What the call of an attempt came to, {status, ms}: "?" without an outcome. Null for all other rows. */
  outcome(index) {
    if (!this.isAttempt(index)) return null;
    const ms = this.duration[index];
    return { status: this.stateName(index).slice(ATTEMPT.length), ms: Number.isNaN(ms) ? null : ms };
  }

  /** Whether a row is a decision that let a call pass. */
  passed(index) {
    if (this.laneName(index) !== "decision") return false;
    const word = this.stateName(index).toLowerCase();
    return word === "none" || stateOf(word) === "ok";
  }

  failed(index) {
    return isFailure(this.laneName(index), this.stateName(index));
  }

  #reach(from) {
    for (let i = from; i < this.length; i++) {
      const until = this.at[i] + (this.duration[i] || 0);
      if (until > this.span) this.span = until;
      if (this.at[i] < this.earliest) this.earliest = this.at[i];
    }
  }

  /** How many rows have no readable time. */
  get untimed() {
    let count = 0;
    for (let i = 0; i < this.length; i++) if (Number.isNaN(this.at[i])) count++;
    return count;
  }

  /** {lane: {count, failed, duration_ms}} for the table that says in words what the canvas draws. */
  counts() {
    // Numbers first, names after: a live session of 100 000 rows is counted every second, and frames must not wait.
    const words = this.states.length;
    const failing = this.lanes.map((lane) => [...this.states.map((word) => isFailure(lane, word)), isFailure(lane, "")]);
    const lines = this.lanes.map(() => ({ count: 0, failed: 0, duration_ms: 0 }));
    for (let i = 0; i < this.length; i++) {
      const lane = this.lane[i];
      const line = lines[lane];
      line.count++;
      if (failing[lane][Math.min(this.state[i], words)]) line.failed++;
      line.duration_ms += this.duration[i] || 0;
    }
    return Object.fromEntries(this.lanes.map((lane, i) => [lane, lines[i]]).filter(([, { count }]) => count));
  }

  /**
   * Take in rows that arrived live; returns the index from which on rows are new or moved, the length when none is.
   *
   * A row of another dump may belong further up: it is put where its time says, before rows that are later. Rows that
   * are here already are passed over.
   */
  add(rows) {
    const fresh = rows.filter((row) => !this.place.has(row.seq));
    if (!fresh.length) return this.length;
    if (this.length + fresh.length > this.seq.length) {
      this.#reserve(Math.max(2 * this.seq.length, this.length + fresh.length));
    }
    let lowest = this.length, moved = this.length;
    for (const row of fresh) {
      const end = row.at ? Date.parse(row.at) : NaN;
      const stage = stageOf(row);
      const ends = stage === "result" && row.call !== row.seq ? this.indexOf(row.call) : -1;
      const duration = ends >= 0 ? NaN : row.duration_ms ?? NaN;
      const before = row.lane === "tool" && stage !== "attempt" ? duration || 0 : 0;
      if (Number.isNaN(this.start) && !Number.isNaN(end)) this.start = end - before;
      const stamp = end - this.start;
      if (ends >= 0) this.#end(ends, row.status, stamp);
      let index = this.length;
      while (index > 0 && this.stamp[index - 1] > stamp) index--;
      if (index < this.length) this.#open(index);
      this.seq[index] = row.seq;
      this.at[index] = stamp - before;
      this.stamp[index] = stamp;
      this.duration[index] = duration;
      this.lane[index] = indexIn(this.lanes, row.lane || "other");
      this.agent[index] = indexIn(this.agents, row.agent);
      this.state[index] = indexIn(this.states, stage === "attempt" && row.lane === "tool" ? OPEN : row.status);
      this.length++;
      lowest = Math.min(lowest, index, ends >= 0 ? ends : index);
      moved = Math.min(moved, index);
      this.#places(index);
      this.lastSeq = Math.max(this.lastSeq, row.seq);
    }
    this.#gaps(lowest);
    this.#reach(lowest);
    return moved;
  }

  /** The call that began at `index` came to `status`. */
  #end(index, status, stamp) {
    this.state[index] = indexIn(this.states, ATTEMPT + (status ?? ""));
    this.duration[index] = stamp >= this.at[index] ? Math.round(stamp - this.at[index]) : NaN;
  }

  /** Make room for a row at `index`. */
  #open(index) {
    const { seq, at, stamp, duration, lane, agent, state, gap } = this;
    for (const column of [seq, at, stamp, duration, lane, agent, state, gap]) {
      column.copyWithin(index + 1, index, this.length);
    }
  }

  /** How long each first reply took after the user's last words, from row `from` on. */
  #gaps(from) {
    let spoken = NaN;
    for (let i = from - 1; i >= 0; i--) {
      const lane = this.laneName(i);
      if (lane === "assistant") break;
      if (lane === "user") { spoken = this.at[i]; break; }
    }
    for (let i = from; i < this.length; i++) {
      const lane = this.laneName(i);
      this.gap[i] = NaN;
      if (lane === "user") spoken = this.at[i];
      else if (lane === "assistant") {
        this.gap[i] = this.at[i] - spoken;
        spoken = NaN;
      }
    }
  }

  /**
   * The nearest index after (step 1) or before (step -1) `index` for which `wanted(index)` holds, or -1.
   * Start from -1 to find the first, from `length` to find the last.
   */
  next(index, step, wanted) {
    for (let i = index + step; i >= 0 && i < this.length; i += step) if (wanted(i)) return i;
    return -1;
  }
}

function undelta(from, to) {
  let value = 0;
  from.forEach((delta, i) => {
    if (delta === null) to[i] = NaN;
    else to[i] = value += delta;
  });
}

function indexIn(list, word) {
  if (!word) return UNKNOWN;
  const at = list.indexOf(word);
  return at < 0 ? list.push(word) - 1 : at;
}

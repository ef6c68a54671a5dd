/**
 * The overview of a whole session: swim lanes on a canvas, and below them a strip on which a part is chosen.
 *
 * Whatever the length, a frame costs one pass over the columns and one rectangle per run of pixels: rows that share a
 * pixel are counted into it, not painted over each other.
 */
import { ICONS, isFailure, stateOf } from "./row.js";

const LANE_HEIGHT = 20;
const AXIS_HEIGHT = 20;
const GUTTER = 92;  // lane names, left of the bars
const POINT = 3;  // pixels of a row without a duration, and the least of one with
const DETAILED = 1500;  // up to so many rows in view each gets its own shape
const CROSS = 9;  // pixels from one failure's cross to the next
const SHORTEST_MS = 20;  // no zoom below this window

const NAMES = {
  user: "user", assistant: "assistant", status: "status", tool: "tools", vision: "vision", decision: "decisions",
  memory: "memory", run: "runs", other: "session",
};
const ORDER = Object.keys(NAMES);
// Rare kinds share the last lane, where errors stand out by their shape.
const SHARED = { lifecycle: "other", error: "other" };

/** A window of time on a strip of pixels. Never leaves 0…span, never gets shorter than SHORTEST_MS. */
export class TimeScale {
  constructor(span, width, origin = 0) {
    this.origin = origin;
    this.span = Math.max(span, SHORTEST_MS);
    this.width = Math.max(1, width);
    this.whole();
  }

  whole() {
    const margin = (this.span - this.origin) * 0.01;
    this.least = this.origin - margin;
    this.most = this.span + margin;
    this.set(this.least, this.most);
  }

  get isWhole() {
    return this.to - this.from >= (this.most - this.least) * (1 - 1e-9);  // sums of fractions are rounded
  }

  set(from, to) {
    const window = Math.min(Math.max(to - from, SHORTEST_MS), this.most - this.least);
    this.from = Math.min(Math.max(from, this.least), this.most - window);
    this.to = this.from + window;
  }

  x(ms) {
    return ((ms - this.from) / (this.to - this.from)) * this.width;
  }

  ms(x) {
    return this.from + (x / this.width) * (this.to - this.from);
  }

  /** `factor` > 1 shows more detail; what is under pixel `x` stays under it. */
  zoom(factor, x = this.width / 2) {
    const at = this.ms(x);
    const window = Math.min(Math.max((this.to - this.from) / factor, SHORTEST_MS), this.most - this.least);
    const from = at - (x / this.width) * window;
    this.set(from, from + window);
  }

  pan(pixels) {
    const by = (pixels / this.width) * (this.to - this.from);
    this.set(this.from + by, this.to + by);
  }

  /** The session grew: a whole view stays whole, a window on the end moves with it if `follow`, any other stays. */
  grow(span, origin = this.origin, follow = true) {
    const whole = this.isWhole;
    const atEnd = follow && this.to >= this.span;
    this.span = Math.max(span, SHORTEST_MS);
    this.origin = origin;
    const margin = (this.span - origin) * 0.01;
    this.least = origin - margin;
    this.most = this.span + margin;
    if (whole) this.set(this.least, this.most);
    else if (atEnd) this.toEnd();
    else this.set(this.from, this.to);
  }

  /** Move the window so that the end of the session is in it, with a little room behind. */
  toEnd() {
    if (this.isWhole) return;
    const window = this.to - this.from;
    const to = Math.max(this.to, this.span + window * 0.03);
    this.set(to - window, to);
  }
}

const STEPS = [
  10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 10e3, 15e3, 30e3, 60e3, 120e3, 300e3, 600e3, 900e3, 1800e3, 3600e3,
  7200e3, 4 * 3600e3, 6 * 3600e3, 12 * 3600e3, 24 * 3600e3, 48 * 3600e3, 7 * 24 * 3600e3, 30 * 24 * 3600e3,
  365 * 24 * 3600e3,
];

/** {step, at: [ms, …]}: round steps at least `room` pixels apart, aligned to `base` (epoch milliseconds of zero). */
export function ticks(scale, base = 0, room = 90) {
  const least = ((scale.to - scale.from) / scale.width) * room;
  const step = STEPS.find((one) => one >= least) ?? STEPS.at(-1) * Math.ceil(least / STEPS.at(-1));
  const at = [];
  for (let t = Math.ceil((base + scale.from) / step) * step - base; t <= scale.to; t += step) at.push(t);
  return { step, at };
}

/**
 * The lanes an outline needs, from top to bottom: [{key, name, agent}], and for each row its lane.
 *
 * Tools and status posts get a lane per agent when there are several. `slotOf(index)` is the position of a row's lane,
 * `slotOfPost(agent)` that of a post which is no row: `posts`, [{agent}], are those of a status log beside the session.
 */
export function lanesOf(outline, posts = []) {
  const present = new Set();
  const agents = new Set();
  const posters = new Set(posts.map((post) => post.agent));
  const { timed } = timesOf(outline);
  for (let i = 0; i < outline.length; i++) {
    const lane = outline.laneName(i);
    if (lane !== "interruption") present.add(SHARED[lane] ?? lane);  // these cross all lanes
    // Calls that no time places are not drawn: a lane for each of their agents would stay empty.
    if (timed && Number.isNaN(outline.at[i])) continue;
    if (lane === "tool") agents.add(outline.agent[i]);
    else if (lane === "status") posters.add(outline.agentName(i));
  }
  for (const always of ["user", "assistant", "status", "tool"]) present.add(always);
  const lanes = [];
  const toolSlots = new Map(), statusSlots = new Map();
  for (const key of ORDER.filter((one) => present.has(one))) {
    if (key === "tool" && agents.size > 1 && agents.size <= 8) {
      for (const agent of [...agents].sort((a, b) => a - b)) {
        toolSlots.set(agent, lanes.length);
        lanes.push({ key, name: outline.agents[agent] ?? "tools", agent: outline.agents[agent] ?? "" });
      }
    } else if (key === "status" && posters.size > 1 && posters.size <= 8) {
      for (const agent of [...posters].sort()) {
        statusSlots.set(agent, lanes.length);
        lanes.push({ key, name: `${NAMES[key]} ${agent}`, agent });
      }
    } else lanes.push({ key, name: NAMES[key], agent: null });
  }
  const slots = outline.lanes.map((lane) => {
    const key = SHARED[lane] ?? (lane in NAMES ? lane : "other");
    return lanes.findIndex((one) => one.key === key);
  });
  const tool = outline.lanes.indexOf("tool"), status = outline.lanes.indexOf("status");
  const last = lanes.length - 1;
  const slotOf = (index) => {
    const lane = outline.lane[index];
    let own;
    if (lane === tool) own = toolSlots.get(outline.agent[index]);
    else if (lane === status) own = statusSlots.get(outline.agentName(index));
    return own ?? (slots[lane] >= 0 ? slots[lane] : last);
  };
  const firstOfStatus = lanes.findIndex((one) => one.key === "status");
  const slotOfPost = (agent) => statusSlots.get(agent) ?? firstOfStatus;
  return { lanes, slotOf, slotOfPost };
}

/** Pixel runs [[from, to], …] that at least one of the counted spans covers; `edges` is a difference array. */
export function runs(edges) {
  const found = [];
  let depth = 0, from = -1;
  for (let x = 0; x < edges.length; x++) {
    depth += edges[x];
    if (depth > 0 && from < 0) from = x;
    if (depth <= 0 && from >= 0) {
      found.push([from, x]);
      from = -1;
    }
  }
  if (from >= 0) found.push([from, edges.length]);
  return found;
}

/**
 * Where rows stand on the time axis. Without a single readable time the order itself is the axis, a second a row, so that
 * the lanes still show who followed whom.
 */
export function timesOf(outline) {
  for (let i = 0; i < outline.length; i++) if (outline.at[i] === outline.at[i]) return { at: outline.at, timed: true };
  return { at: Float64Array.from({ length: outline.length }, (_, i) => i * 1000), timed: false };
}

export class Overview {
  /**
   * `canvas` shows the lanes, `strip` the whole session with the window in it, `tip` is a box for the hover text.
   * `choose(index)` is called for a click; `describe(index)` gives the hover text; `clock(date, step)` a tick's label.
   */
  constructor({ canvas, strip, tip, choose, describe, clock }) {
    Object.assign(this, { canvas, strip, tip, choose, describe, clock });
    this.posts = [];
    this.selected = -1;
    this.matches = null;
    this.shown = null;
    this.following = false;
    this.#listen();
    new ResizeObserver(() => this.#resized()).observe(canvas.parentElement);
  }

  setOutline(outline) {
    this.outline = outline;
    this.laid = lanesOf(outline, this.posts);
    this.known = new Set();
    for (let i = 0; i < outline.length; i++) this.known.add(outline.lane[i] * 65536 + outline.agent[i]);
    Object.assign(this, timesOf(outline));
    this.#place(0);
    this.scale ??= new TimeScale(0, this.#width());
    this.#grow();
    const height = this.laid.lanes.length * LANE_HEIGHT + AXIS_HEIGHT;
    if (height !== this.height) {
      this.height = height;
      this.canvas.style.height = `${height}px`;
    }
    this.#resized();
  }

  /** Rows from index `from` on are new or moved: a new layout only when one of them needs a new lane. */
  grew(from) {
    const { outline } = this;
    for (let i = from; i < outline.length; i++) {
      if (!this.known.has(outline.lane[i] * 65536 + outline.agent[i])) return this.setOutline(outline);
    }
    Object.assign(this, timesOf(outline));
    this.#place(from);
    this.#grow();
    this.draw();
  }

  /** The lane of each row from index `from` on, looked up once and not in every frame. */
  #place(from) {
    const { outline, laid } = this;
    if (!this.slots || this.slots.length < outline.length) {
      const grown = new Uint8Array(outline.seq.length);
      if (this.slots && from) grown.set(this.slots.subarray(0, from));
      this.slots = grown;
    }
    for (let i = from; i < outline.length; i++) this.slots[i] = laid.slotOf(i);
  }

  #grow() {
    const { outline } = this;
    const span = (this.timed ? outline.span : (outline.length - 1) * 1000) || 1000;  // one instant: a second around it
    this.scale.grow(span, this.timed ? outline.earliest : 0, this.following);
  }

  #width() {
    return Math.max(50, (this.canvas.clientWidth || 800) - GUTTER - 8);
  }

  #resized() {
    if (!this.outline) return;
    this.scale.width = this.#width();
    this.colors = null;
    this.draw();
  }

  /** Colours are asked for again before the next frame: the theme changed. */
  recolor() {
    this.colors = null;
    this.draw();
  }

  select(index) {
    this.selected = index;
    const at = this.at?.[index];
    if (at !== undefined && !this.scale.isWhole && (at < this.scale.from || at > this.scale.to)) {
      const half = (this.scale.to - this.scale.from) / 2;
      this.scale.set(at - half, at + half);
    }
    this.draw();
  }

  /**
   * Show posts of a status log beside the session: [{ms, agent, state, words, href}], `ms` since the epoch. Hovering
   * says their `words`, a click opens `href`.
   */
  setPosts(posts) {
    this.posts = posts;
    if (this.outline) this.setOutline(this.outline);
  }

  /** Keep the newest rows in view as they come, or leave the window where it is. */
  follow(on) {
    this.following = on;
    if (!on || !this.scale) return;
    this.scale.toEnd();
    this.draw();
  }

  /** `shown`: Uint8Array over indexes (0 = faded) or null for all; `matches`: indexes that light up, or null. */
  mark({ shown = this.shown, matches = this.matches }) {
    this.shown = shown;
    this.matches = matches;
    this.draw();
  }

  draw() {
    if (this.asked || !this.outline) return;
    this.asked = true;
    requestAnimationFrame(() => { this.asked = false; this.paint(); });
  }

  #palette() {
    const probe = document.createElement("i");
    this.canvas.parentElement.append(probe);
    const names = [
      "text", "text-soft", "line", "bg", "bg-sunken", "accent", "c-user", "c-assistant", "c-tool", "c-vision",
      "c-interruption", "c-status", "c-decision", "c-memory", "c-run", "c-failure", "c-other", "c-ok", "c-pending",
    ];
    const colors = {};
    for (const name of names) {
      probe.style.color = `var(--${name})`;
      colors[name] = getComputedStyle(probe).color;
    }
    colors.font = getComputedStyle(this.canvas).fontFamily;
    probe.style.fontFamily = "var(--mono)";
    colors.mono = getComputedStyle(probe).fontFamily;
    probe.remove();
    return colors;
  }

  #context(canvas, height) {
    const ratio = globalThis.devicePixelRatio || 1;
    const width = canvas.clientWidth;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    return context;
  }

  #laneColor(key) {
    return this.colors[`c-${key}`] ?? this.colors["c-other"];
  }

  paint() {
    if (!this.canvas.clientWidth) return;
    this.colors ??= this.#palette();
    const { outline, scale, colors, laid, at } = this;
    const context = this.#context(this.canvas, this.height);
    const bottom = laid.lanes.length * LANE_HEIGHT;
    const right = GUTTER + scale.width;
    this.#axis(context, bottom, right);

    const { inView, cuts, failures, edges, faint, count } = this.#measure();
    laid.lanes.forEach((lane, slot) => {
      const y = slot * LANE_HEIGHT;
      context.fillStyle = this.#laneColor(lane.key);
      context.globalAlpha = 0.2;
      this.#bars(context, runs(faint[slot]), y);
      context.globalAlpha = 1;
      if (count > DETAILED) this.#bars(context, runs(edges[slot]), y);
    });
    if (count <= DETAILED) for (const i of inView) if (!this.shown || this.shown[i]) this.#shape(context, i);
    this.#drawPosts(context);

    context.strokeStyle = colors["c-failure"];
    context.lineWidth = 2;
    // Crosses side by side would hide the bars.
    const room = failures.length > scale.width / 20 ? 2 * CROSS : CROSS;
    const crossed = new Float64Array(laid.lanes.length).fill(-room);
    for (const [x, slot] of failures) {
      if (x - crossed[slot] < room) continue;
      crossed[slot] = x;
      this.#cross(context, GUTTER + x + 4, slot * LANE_HEIGHT + LANE_HEIGHT / 2);
    }
    context.strokeStyle = colors["c-interruption"];
    context.lineWidth = 1.5;
    context.setLineDash([4, 3]);
    context.globalAlpha = cuts.size > scale.width / 12 ? 0.4 : 1;  // so many at once are a texture, not events
    context.beginPath();
    for (const x of cuts) {
      context.moveTo(GUTTER + x + 0.5, 0);
      context.lineTo(GUTTER + x + 0.5, bottom);
    }
    context.stroke();
    context.setLineDash([]);
    context.globalAlpha = 1;
    this.#matches(context, bottom);
    this.#selection(context, bottom);
    this.#gutter(context);
    this.#strip();
  }

  /**
   * One pass over all rows: what each lane shows at which pixel. `edges` and `faint` are difference arrays of the rows
   * that pass the filter and of those that do not; `inView` holds the first DETAILED rows of the window.
   *
   * Plain arithmetic on typed arrays and nothing else: 100 000 rows take about 3 ms so, 30 with calls per row.
   */
  #measure() {
    const { outline, scale, laid, at, slots, shown } = this;
    const { duration, lane, state, length } = outline;
    const { from: least, width } = scale;
    const perMs = width / (scale.to - least);
    const failedStates = new Uint8Array(65536);
    const refusedStates = new Uint8Array(65536);
    outline.states.forEach((word, i) => {
      if (isFailure("", word)) failedStates[i] = 1;
      else if (stateOf(word) === "failed") refusedStates[i] = 1;
    });
    const errorLane = outline.lanes.indexOf("error"), decisionLane = outline.lanes.indexOf("decision");
    const interruption = outline.lanes.indexOf("interruption");
    const pixels = Math.ceil(width) + 1;
    const edges = laid.lanes.map(() => new Int32Array(pixels));
    const faint = laid.lanes.map(() => new Int32Array(pixels));
    const crossed = new Float64Array(laid.lanes.length).fill(-CROSS);
    const inView = [], failures = [], cuts = new Set();
    let count = 0;
    for (let i = 0; i < length; i++) {
      const x = (at[i] - least) * perMs;
      if (!(x <= width)) continue;  // later than the window, or without a time
      const end = Math.max(x + POINT, x + (duration[i] || 0) * perMs);
      if (end < 0) continue;
      count++;
      const on = !shown || shown[i];
      if (lane[i] === interruption) {
        if (on) cuts.add(Math.round(x));
        continue;
      }
      if (count <= DETAILED) inView.push(i);
      const slot = slots[i];
      const into = (on ? edges : faint)[slot];
      into[x > 0 ? x | 0 : 0]++;
      into[Math.min(pixels - 1, Math.ceil(end))]--;
      const loud = failedStates[state[i]] || lane[i] === errorLane || (lane[i] === decisionLane && refusedStates[state[i]]);
      if (loud && on && x >= 0 && x - crossed[slot] >= CROSS) {
        crossed[slot] = x;
        failures.push([x, slot]);
      }
    }
    return { inView, cuts, failures, edges, faint, count };
  }

  #bars(context, list, y) {
    for (const [from, to] of list) context.fillRect(GUTTER + from, y + 5, to - from, LANE_HEIGHT - 10);
  }

  #shape(context, i) {
    const { outline, scale, laid, at } = this;
    const slot = laid.slotOf(i);
    const y = slot * LANE_HEIGHT;
    const x = GUTTER + Math.max(-20, scale.x(at[i]));
    const end = GUTTER + Math.min(scale.width, scale.x(at[i] + (outline.duration[i] || 0)));
    const lane = laid.lanes[slot];
    if (lane.key === "status") {
      if (!outline.failed(i)) this.#level(context, outline.stateName(i), x, y);  // a failure has its cross
      return;
    }
    context.fillStyle = this.#laneColor(lane.key);
    const middle = y + LANE_HEIGHT / 2;
    context.beginPath();
    if (lane.key === "vision") {  // a diamond: a glance has no length
      context.moveTo(x, middle - 6);
      context.lineTo(x + 6, middle);
      context.lineTo(x, middle + 6);
      context.lineTo(x - 6, middle);
    } else if (lane.key === "memory") context.arc(x + 2, middle, 3.5, 0, 7);
    else if (lane.key === "decision") {  // a shield: it stands before a call
      context.moveTo(x - 3, middle - 5);
      context.lineTo(x + 5, middle - 5);
      context.lineTo(x + 5, middle + 1);
      context.lineTo(x + 1, middle + 5);
      context.lineTo(x - 3, middle + 1);
    } else if (lane.key === "run") {  // a run is known by its beginning alone
      context.moveTo(x, middle - 6);
      context.lineTo(x + 7, middle);
      context.lineTo(x, middle + 6);
    } else if (lane.key === "other") context.rect(x - 1, y + 3, 3, LANE_HEIGHT - 6);
    else if (lane.key === "tool" && outline.isOpen(i)) return this.#open(context, x, y);
    else context.roundRect(x, y + 4, Math.max(POINT + 2, end - x), LANE_HEIGHT - 8, 2);
    context.fill();
  }

  /** A status post: RoomKit's own mark of its level. */
  #level(context, state, x, y) {
    const { colors } = this;
    const loud = { failed: "c-failure", pending: "c-pending", ok: "c-ok", completed: "c-ok" };
    context.fillStyle = colors[Object.hasOwn(loud, state) ? loud[state] : "c-status"];
    context.font = `bold 14px ${colors.mono}`;
    context.textBaseline = "middle";
    context.textAlign = "center";
    context.fillText(Object.hasOwn(ICONS, state) ? ICONS[state] : "·", x + 1, y + LANE_HEIGHT / 2 + 1);
    context.textAlign = "start";
  }

  #drawPosts(context) {
    const { posts, scale, laid } = this;
    const seen = [];
    for (const post of this.timed ? posts : []) {
      const x = scale.x(post.ms - this.outline.start);
      if (x >= -8 && x <= scale.width) seen.push([post, x]);
    }
    context.fillStyle = this.#laneColor("status");
    for (const [post, x] of seen) {
      const y = laid.slotOfPost(post.agent) * LANE_HEIGHT;
      if (seen.length <= DETAILED) this.#level(context, post.state, GUTTER + x, y);
      else context.fillRect(GUTTER + x, y + 5, POINT, LANE_HEIGHT - 10);
    }
  }

  /** A call without an outcome: a bar that is open at its right, and a question mark. */
  #open(context, x, y) {
    const { colors } = this;
    context.save();
    context.strokeStyle = colors["c-tool"];
    context.lineWidth = 1.5;
    context.beginPath();
    context.moveTo(x + 14, y + 4);
    context.lineTo(x + 1, y + 4);
    context.lineTo(x + 1, y + LANE_HEIGHT - 4);
    context.lineTo(x + 14, y + LANE_HEIGHT - 4);
    context.stroke();
    context.font = `bold 12px ${colors.font}`;
    context.textBaseline = "middle";
    context.fillText("?", x + 5, y + LANE_HEIGHT / 2 + 1);
    context.restore();
  }

  #cross(context, x, y) {
    context.beginPath();
    context.moveTo(x - 4, y - 4);
    context.lineTo(x + 4, y + 4);
    context.moveTo(x + 4, y - 4);
    context.lineTo(x - 4, y + 4);
    context.save();
    context.strokeStyle = this.colors.bg;
    context.lineWidth = 5;
    context.stroke();
    context.restore();
    context.stroke();
  }

  #axis(context, bottom, right) {
    const { colors, scale, laid } = this;
    context.fillStyle = colors["bg-sunken"];
    laid.lanes.forEach((_, slot) => {
      if (slot % 2 === 0) context.fillRect(GUTTER, slot * LANE_HEIGHT, right - GUTTER, LANE_HEIGHT);
    });
    context.strokeStyle = colors.line;
    context.lineWidth = 1;
    context.fillStyle = colors["text-soft"];
    context.font = `12px ${colors.font}`;
    context.textBaseline = "middle";
    const base = this.timed ? this.outline.start : 0;
    const { step, at } = ticks(scale, base);
    context.beginPath();
    let free = GUTTER;  // where the label before ends
    for (const ms of at) {
      const x = Math.round(GUTTER + scale.x(ms)) + 0.5;
      if (x < GUTTER) continue;
      context.moveTo(x, 0);
      context.lineTo(x, bottom + 4);
      const label = this.timed ? this.clock(new Date(base + ms), step) : `#${Math.round(ms / 1000) + 1}`;
      const wide = context.measureText(label).width;
      const left = Math.max(GUTTER, Math.min(x - wide / 2, right - wide));
      if (left < free) continue;
      context.fillText(label, left, bottom + AXIS_HEIGHT / 2 + 2);
      free = left + wide + 10;
    }
    context.stroke();
  }

  #gutter(context) {
    const { colors, laid } = this;
    const bottom = laid.lanes.length * LANE_HEIGHT;
    context.clearRect(0, 0, GUTTER - 1, bottom);
    context.font = `12px ${colors.font}`;
    context.textBaseline = "middle";
    laid.lanes.forEach((lane, slot) => {
      const y = slot * LANE_HEIGHT + LANE_HEIGHT / 2;
      context.fillStyle = this.#laneColor(lane.key);
      context.fillRect(0, y - 5, 4, 10);
      context.fillStyle = colors.text;
      context.fillText(clipped(context, lane.name, GUTTER - 16), 10, y);
    });
  }

  #matches(context, bottom) {
    if (!this.matches) return;
    context.fillStyle = this.colors.accent;
    let last = -9;
    for (const index of this.matches) {
      const x = Math.round(this.scale.x(this.at[index]));
      if (!(x >= 0 && x <= this.scale.width) || x === last) continue;
      last = x;
      context.globalAlpha = 0.28;
      context.fillRect(GUTTER + x - 1, 0, 3, bottom);
      context.globalAlpha = 1;
      context.beginPath();
      context.moveTo(GUTTER + x - 4, bottom + 5);
      context.lineTo(GUTTER + x + 4, bottom + 5);
      context.lineTo(GUTTER + x, bottom);
      context.fill();
    }
  }

  #selection(context, bottom) {
    const x = this.scale.x(this.at[this.selected]);
    if (!(x >= 0 && x <= this.scale.width)) return;
    const slot = this.laid.slotOf(this.selected);
    const wide = Math.max(8, this.scale.x(this.at[this.selected] + (this.outline.duration[this.selected] || 0)) - x + 4);
    context.strokeStyle = this.colors.text;
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(Math.round(GUTTER + x) + 0.5, 0);
    context.lineTo(Math.round(GUTTER + x) + 0.5, bottom);
    context.stroke();
    context.strokeStyle = this.colors.accent;
    context.lineWidth = 2;
    context.strokeRect(GUTTER + x - 2, slot * LANE_HEIGHT + 2, Math.min(wide, this.scale.width - x + 4), LANE_HEIGHT - 4);
  }

  /** Rows per pixel of the strip; the strip shows the whole session, so only its length and width change it. */
  #density(whole) {
    const { outline, scale, at } = this;
    const key = [outline.length, outline.revision, scale.width, scale.least, scale.most].join();
    if (this.dense?.key !== key) {
      const density = new Uint16Array(Math.ceil(scale.width) + 1);
      let most = 1;
      for (let i = 0; i < outline.length; i++) {
        const x = Math.round(whole(at[i]));
        if (x >= 0 && x < density.length && ++density[x] > most) most = density[x];
      }
      this.dense = { key, density, most };
    }
    return this.dense;
  }

  #strip() {
    const height = this.strip.clientHeight;
    if (!height) return;
    const context = this.#context(this.strip, height);
    const { colors, scale } = this;
    const reach = scale.most - scale.least;
    const whole = (ms) => ((ms - scale.least) / reach) * scale.width;
    const { density, most } = this.#density(whole);
    context.fillStyle = colors["c-other"];
    const room = height - 6;
    density.forEach((number, x) => {
      if (!number) return;
      const tall = Math.max(2, Math.sqrt(number / most) * room);
      context.fillRect(GUTTER + x, height - 3 - tall, 1.5, tall);
    });
    const from = GUTTER + whole(scale.from), to = GUTTER + whole(scale.to);
    context.fillStyle = colors.accent;
    context.globalAlpha = 0.14;
    context.fillRect(from, 0, to - from, height);
    context.globalAlpha = 1;
    context.strokeStyle = colors.accent;
    context.lineWidth = 1;
    context.strokeRect(from + 0.5, 0.5, to - from - 1, height - 1);
  }

  /** The row nearest to a point of the canvas, or -1. Rows of the lane under the pointer only; interruptions anywhere. */
  hit(x, y) {
    const { outline, scale, laid, at } = this;
    const slot = Math.floor(y / LANE_HEIGHT);
    if (x < GUTTER - 6 || slot >= laid.lanes.length) return -1;
    const interruption = outline.lanes.indexOf("interruption");
    const px = x - GUTTER;
    let best = -1, distance = 7;
    for (let i = 0; i < outline.length; i++) {
      const from = scale.x(at[i]);
      if (!(from - 7 <= px)) continue;
      const to = Math.max(from + POINT, scale.x(at[i] + (outline.duration[i] || 0)));
      if (to + 7 < px || (this.shown && !this.shown[i])) continue;
      if (outline.lane[i] !== interruption && this.slots[i] !== slot) continue;
      const off = px < from ? from - px : px > to ? px - to : (px - from) / 1e4;
      if (off < distance) {
        distance = off;
        best = i;
      }
    }
    return best;
  }

  /** The post of a status log at a point of the canvas, if there is one. */
  hitPost(x, y) {
    const slot = Math.floor(y / LANE_HEIGHT);
    if (!this.timed) return undefined;
    const off = (post) => Math.abs(GUTTER + this.scale.x(post.ms - this.outline.start) - x);
    let best;
    for (const post of this.posts) {
      if (this.laid.slotOfPost(post.agent) === slot && off(post) < 7 && !(best && off(best) <= off(post))) best = post;
    }
    return best;
  }

  #listen() {
    const { canvas, strip } = this;
    const changed = () => this.draw();
    canvas.addEventListener("wheel", (event) => {
      if (!this.scale) return;
      event.preventDefault();
      const sideways = Math.abs(event.deltaX) > Math.abs(event.deltaY);
      if (sideways) this.scale.pan(event.deltaX);
      else this.scale.zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0018)), event.offsetX - GUTTER);
      changed();
    }, { passive: false });

    const fingers = new Map();
    let start = null;
    canvas.addEventListener("pointerdown", (event) => {
      if (!this.scale || (event.pointerType === "mouse" && event.button !== 0)) return;
      canvas.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, event.offsetX);
      start = { x: event.offsetX, y: event.offsetY, moved: false, brush: event.shiftKey };
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!this.outline) return;
      const before = fingers.get(event.pointerId);
      if (before === undefined) return this.#hover(event);
      if (fingers.size === 2) {
        const other = [...fingers].find(([id]) => id !== event.pointerId)[1];
        const was = Math.abs(before - other), is = Math.abs(event.offsetX - other);
        if (was > 4 && is > 4) this.scale.zoom(is / was, (event.offsetX + other) / 2 - GUTTER);
        start.moved = true;
      } else if (start && (start.moved || Math.abs(event.offsetX - start.x) > 4)) {
        start.moved = true;
        if (start.brush) start.to = event.offsetX;
        else this.scale.pan(before - event.offsetX);
      }
      fingers.set(event.pointerId, event.offsetX);
      changed();
    });
    const up = (event) => {
      if (!fingers.delete(event.pointerId) || fingers.size || !start) return;
      if (start.moved && start.brush && start.to !== undefined) {
        const [from, to] = [start.x, start.to].map((x) => this.scale.ms(x - GUTTER)).sort((a, b) => a - b);
        this.scale.set(from, to);
      } else if (!start.moved && event.type === "pointerup") {
        const index = this.hit(start.x, start.y);
        const post = this.hitPost(start.x, start.y);
        if (index >= 0) this.choose(index);
        else if (post) location.assign(post.href);
      }
      start = null;
      changed();
    };
    canvas.addEventListener("pointerup", up);
    canvas.addEventListener("pointercancel", up);
    canvas.addEventListener("pointerleave", () => { this.tip.hidden = true; });
    canvas.addEventListener("dblclick", () => { this.scale?.whole(); changed(); });

    let brush = null;
    const reach = (x) => this.scale.least + ((x - GUTTER) / this.scale.width) * (this.scale.most - this.scale.least);
    strip.addEventListener("pointerdown", (event) => {
      if (!this.scale) return;
      strip.setPointerCapture(event.pointerId);
      const at = reach(event.offsetX);
      const inside = !this.scale.isWhole && at >= this.scale.from && at <= this.scale.to && !event.shiftKey;
      brush = { x: event.offsetX, at, inside };
    });
    strip.addEventListener("pointermove", (event) => {
      if (!brush) return;
      const at = reach(event.offsetX);
      if (brush.inside) {
        this.scale.set(this.scale.from + at - brush.at, this.scale.to + at - brush.at);
        brush.at = at;
      } else if (Math.abs(event.offsetX - brush.x) > 3) this.scale.set(Math.min(at, brush.at), Math.max(at, brush.at));
      changed();
    });
    strip.addEventListener("pointerup", (event) => {
      if (brush && Math.abs(event.offsetX - brush.x) <= 3 && !brush.inside) {
        const half = (this.scale.to - this.scale.from) / 2;
        if (!this.scale.isWhole) this.scale.set(brush.at - half, brush.at + half);
        changed();
      }
      brush = null;
    });
    strip.addEventListener("pointercancel", () => { brush = null; });
    strip.addEventListener("dblclick", () => { this.scale?.whole(); changed(); });
  }

  #hover(event) {
    const index = this.hit(event.offsetX, event.offsetY);
    const post = index < 0 ? this.hitPost(event.offsetX, event.offsetY) : undefined;
    const hit = index >= 0 || post !== undefined;
    this.canvas.classList.toggle("over", hit);
    this.tip.hidden = !hit;
    if (!hit) return;
    this.tip.textContent = post ? post.words : this.describe(index);
    const most = this.canvas.clientWidth - this.tip.offsetWidth - 8;
    this.tip.style.left = `${Math.max(0, Math.min(event.offsetX + 12, most))}px`;
    this.tip.style.top = `${event.offsetY + 18}px`;
  }

  zoomBy(factor) {
    const x = this.scale.x(this.at[this.selected]);
    this.scale.zoom(factor, x >= 0 && x <= this.scale.width ? x : this.scale.width / 2);
    this.draw();
  }

  whole() {
    this.scale.whole();
    this.draw();
  }
}

function clipped(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let cut = text;
  while (cut.length > 1 && context.measureText(`${cut}…`).width > width) cut = cut.slice(0, -1);
  return `${cut}…`;
}

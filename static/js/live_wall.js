/**
 * The Live wall: a card of each running session, kept up to date over one socket.
 *
 * The page is whole before this runs. Cards stand in the order in which their sessions began, new ones at the end; none
 * moves while somebody looks: what ended leaves an empty place until then.
 */
import { register } from "./keys.js";
import { listen } from "./live_socket.js";
import { ServerClock } from "./live_state.js";
import { createCard, fillCard, says, tick } from "./wall_card.js";
import { showPosts } from "./wall_posts.js";
import { SPAN_MS, eventsOf, paint, palette } from "./wall_strip.js";

const FRAME_MS = 100;
const ENDED_MS = 60_000;  // how long the card of an ended session stays
const FADE_MS = 1000;  // as live.css fades it
const LOOKING_MS = 10_000;  // after a movement over the wall, or a key, somebody looks
const AWAY_MS = 300_000;  // after none for so long, nobody cares for the focused card
const CALM_MS = 10_000;  // between two pictures of a strip for who wants no motion

/** Which of the ended cards may go, oldest first; `focused`: index of the card that has the focus, or -1. */
export function removable(cards, focused, idle) {
  if (idle < LOOKING_MS) return [];
  // Those before the focused card would move it.
  return cards.filter(({ index }) => idle >= AWAY_MS || focused < 0 || index > focused);
}

/** The link to go to from `now` among `boxes` ({left, top}, in reading order) for an arrow key; the same when there is none. */
export function neighbour(boxes, now, key) {
  if (now < 0) return boxes.length ? 0 : -1;
  if (key === "ArrowRight") return Math.min(now + 1, boxes.length - 1);
  if (key === "ArrowLeft") return Math.max(now - 1, 0);
  const here = boxes[now];
  const down = key === "ArrowDown";
  const beyond = boxes.map((box, i) => ({ ...box, i })).filter(({ top }) => (down ? top > here.top : top < here.top));
  if (!beyond.length) return now;
  const row = (down ? Math.min : Math.max)(...beyond.map(({ top }) => top));
  const inRow = beyond.filter(({ top }) => top === row);
  return inRow.reduce((best, box) => (Math.abs(box.left - here.left) < Math.abs(best.left - here.left) ? box : best)).i;
}

export class LiveWall {
  constructor(root, { listenTo = listen, clock = new ServerClock() } = {}) {
    this.root = root;
    this.clock = clock;
    const part = (name) => document.querySelector(`[data-part="${name}"]`);
    this.parts = Object.fromEntries(
      ["cards", "count", "connection", "cut", "shown", "empty", "posts", "no-posts"].map((name) => [name, part(name)]));
    this.team = new URLSearchParams(location.search).get("team");
    this.entries = new Map();  // id → {element, card, events, dirty, paintedAt, endedAt, visible}
    this.waiting = new Map();  // id → the session as told last, not drawn yet
    this.connected = false;
    this.movedAt = -Infinity;
    this.second = 0;
    this.calm = matchMedia("(prefers-reduced-motion: reduce)");
    this.sight = new IntersectionObserver((seen) => {
      for (const { target, isIntersecting } of seen) {
        const entry = this.entries.get(target.dataset.id);
        if (entry) Object.assign(entry, { visible: isIntersecting, dirty: entry.dirty || isIntersecting });
      }
    }, { rootMargin: "200px" });
    for (const element of this.parts.cards.children) this.#add(element.dataset.id, element);
    this.#listen();
    this.#keys();
    this.stop = listenTo(root.dataset.wall + location.search, (message) => this.#take(message), {
      on: {
        up: () => this.#say(""),
        down: () => { this.connected = false; this.#say("The connection is lost; trying again."); },
        ended: (sentence) => { this.connected = false; this.#say(sentence); },
      },
    });
    this.#frame();
  }

  // --- what the server says ------------------------------------------------------------------------------------

  #take(message) {
    this.connected = true;
    this.clock.hear(message.now);
    if (message.type === "sessions") {
      if (message.ids) this.#only(new Set(message.ids));
      for (const card of message.sessions) this.waiting.set(card.id, card);
    } else if (message.type === "session") this.waiting.set(message.id, message);
    else if (message.type === "ended") {
      if (this.entries.has(message.id) || this.waiting.has(message.id)) this.waiting.set(message.id, message);
    } else if (message.type === "gone") this.#drop(message.id);
    else if (message.type === "status") this.#posts(message.entries);
    if (message.running !== undefined) this.#count(message.running);
  }

  /** Only these sessions run: what else is shown ended while we heard nothing, or is none of ours any more. */
  #only(ids) {
    for (const [id, { card }] of [...this.entries]) {
      if (ids.has(id)) continue;
      if (card) this.waiting.set(id, { ...card, live: false });
      else this.#drop(id);
    }
  }

  #count(running) {
    this.parts.count.textContent = running === 1 ? "1 session runs" : `${running} sessions run`;
    const shown = [...this.entries.values()].filter(({ card }) => !card || card.live).length;
    const inMenu = document.getElementById("running");
    if (inMenu && Number(inMenu.dataset.number ?? -1) !== running) {
      inMenu.dataset.number = running;
      const hint = document.createElement("span");
      hint.className = "visually-hidden";
      hint.textContent = " running";
      inMenu.replaceChildren(...(running ? [String(running), hint] : []));
    }
    this.parts.shown.textContent = String(shown);
    this.parts.cut.hidden = running <= shown || this.waiting.size > 0;
  }

  #posts(entries) {
    showPosts(this.parts.posts, entries);
    this.parts["no-posts"].hidden = entries.length > 0;
  }

  #say(sentence) {
    this.parts.connection.textContent = sentence;
    this.root.dataset.connected = String(!sentence);
  }

  // --- cards ---------------------------------------------------------------------------------------------------

  #add(id, element) {
    const entry = { element, card: null, events: [], dirty: true, paintedAt: 0, endedAt: null, visible: false };
    this.entries.set(id, entry);
    this.sight.observe(element);
    return entry;
  }

  #drop(id) {
    this.waiting.delete(id);
    const entry = this.entries.get(id);
    if (!entry) return;
    this.entries.delete(id);
    this.sight.unobserve(entry.element);
    const next = entry.element.nextElementSibling ?? entry.element.previousElementSibling;
    const focused = entry.element.contains(document.activeElement);
    entry.element.remove();
    if (focused) (next?.querySelector("a") ?? document.getElementById("main")).focus();
    this.#emptiness();
  }

  #emptiness() {
    this.parts.empty.hidden = this.entries.size > 0;
  }

  #draw() {
    const now = this.clock.now();
    for (const [id, card] of this.waiting) {
      let entry = this.entries.get(id);
      if (!entry) {
        entry = this.#add(id, createCard(document));
        this.#fill(entry, card, now);
        this.parts.cards.append(entry.element);
        this.#emptiness();
      } else this.#fill(entry, card, now);
    }
    this.waiting.clear();
  }

  #fill(entry, card, now) {
    entry.card = card;
    entry.events = eventsOf(card);
    entry.dirty = true;
    entry.endedAt = card.live ? null : entry.endedAt ?? performance.now();
    const leaving = entry.element.inert;
    const href = this.team ? `${card.url}?team=${encodeURIComponent(this.team)}` : card.url;
    fillCard(entry.element, card, says(card, now), href);
    if (leaving && card.live) entry.element.inert = false;
    else if (leaving) entry.element.classList.add("leaving");
  }

  /** Once a second: what ticks, and the cards whose time is over. */
  #tick() {
    const now = this.clock.now(), here = performance.now();
    const over = [];
    const places = [...this.parts.cards.children];
    for (const [id, { element, card, endedAt }] of this.entries) {
      if (!card) continue;
      if (card.live) tick(element, says(card, now));
      const since = endedAt === null ? 0 : here - endedAt;
      if (since < ENDED_MS || element.contains(document.activeElement)) continue;
      element.classList.add("leaving");
      element.inert = true;
      if (since > ENDED_MS + FADE_MS) over.push({ id, index: places.indexOf(element) });
    }
    if (!over.length) return;
    const focused = places.findIndex((place) => place.contains(document.activeElement));
    for (const { id } of removable(over, focused, here - this.movedAt)) this.#drop(id);
  }

  // --- time passes ---------------------------------------------------------------------------------------------

  #frame() {
    if (this.running || document.hidden) return;
    this.running = true;
    requestAnimationFrame(() => {
      if (this.waiting.size) this.#draw();
      const now = this.clock.now();
      if (this.connected && Math.floor(now / 1000) !== this.second) {
        this.second = Math.floor(now / 1000);
        this.#tick();
      }
      this.#paint(now);
      setTimeout(() => {
        this.running = false;
        this.#frame();
      }, FRAME_MS);
    });
  }

  #paint(now) {
    const least = this.calm.matches ? CALM_MS : 0;
    for (const entry of this.entries.values()) {
      if (!entry.visible || !entry.card) continue;
      const moves = this.connected && entry.card.live;
      const canvas = entry.element.querySelector("canvas");
      const pixel = SPAN_MS / (canvas.clientWidth || 300) / (globalThis.devicePixelRatio || 1) / 2;
      if (!entry.dirty && !(moves && now - entry.paintedAt >= Math.max(pixel, least))) continue;
      this.colors ??= palette();
      const ended = entry.card.live ? now : Date.parse(entry.card.ended_at) || now;
      paint(canvas, entry.events, ended, this.colors);
      Object.assign(entry, { dirty: false, paintedAt: now });
    }
  }

  // --- people --------------------------------------------------------------------------------------------------

  #listen() {
    const moved = () => { this.movedAt = performance.now(); };
    for (const kind of ["pointermove", "pointerdown", "keydown", "focusin", "wheel"]) {
      this.parts.cards.addEventListener(kind, moved, { passive: true });
    }
    this.parts.cards.addEventListener("keydown", (event) => {
      if (!event.key.startsWith("Arrow") || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      const links = this.#links();
      const boxes = links.map((link) => {
        const { left, top } = link.closest(".wall-card").getBoundingClientRect();
        return { left: Math.round(left), top: Math.round(top) };
      });
      links[neighbour(boxes, links.indexOf(document.activeElement), event.key)]?.focus();
    });
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) return;
      this.stop.now?.();
      this.#frame();
    });
    addEventListener("online", () => this.stop.now?.());
    document.addEventListener("auditweb:theme", () => {
      this.colors = null;
      for (const entry of this.entries.values()) entry.dirty = true;
    });
    addEventListener("resize", () => {
      for (const entry of this.entries.values()) entry.dirty = true;
    });
  }

  #links() {
    return [...this.parts.cards.querySelectorAll(".wall-card:not([inert]) a")];
  }

  #keys() {
    const go = (step) => () => {
      this.movedAt = performance.now();
      const links = this.#links();
      const at = links.indexOf(document.activeElement);
      links[at < 0 ? (step > 0 ? 0 : links.length - 1) : Math.min(Math.max(at + step, 0), links.length - 1)]?.focus();
    };
    register("j", "next session", go(1));
    register("k", "previous session", go(-1));
  }
}

const root = globalThis.document?.querySelector("[data-wall]");
if (root) root.wall = new LiveWall(root);

/**
 * The session page: ties overview, transcript and details together, and keeps the address in step.
 *
 * The page is whole before this runs. The outline comes first; with it the transcript becomes a virtual list of the exact
 * length, and the overview is drawn.
 */
import { clock, zone } from "./clock.js";
import { copy } from "./copy.js";
import { Details } from "./details.js";
import { ASKED, LISTS, WORDS, fromAddress, isEmpty, mask, placeIn, positions, toAddress } from "./filters.js";
import { matching, step } from "./find.js";
import { Following } from "./following.js";
import { mention, register } from "./keys.js";
import { LiveHeader } from "./live_header.js";
import { follow } from "./live_log.js";
import { Speaking, numberText } from "./live_state.js";
import { Outline } from "./outline.js";
import { Overview } from "./overview.js";
import { LABELS, createRow, exactTime, fillPlaceholder, fillRow, milliseconds, stageOf, visible } from "./row.js";
import { Rows } from "./rows.js";
import { followStatus } from "./status_lane.js";
import { VirtualList } from "./virtual_list.js";

const finite = (number) => (Number.isFinite(number) ? number : null);
const LOOK_MS = 1000;  // while rows arrive, the header is asked for at most this often
const TICK_SECONDS = 60e3;
const PAGE = 500;  // rows a request, when far behind
const SPOKEN = 300;  // characters of what is being said; a row is one line

export class SessionPage {
  constructor(root) {
    this.root = root;
    this.urls = root.dataset;
    const part = (name) => root.querySelector(`[data-part="${name}"]`);
    this.box = part("transcript");
    this.connection = part("connection");
    this.said = part("said");
    this.findForm = part("find");
    this.findCount = part("find-count");
    this.none = part("none");
    this.table = part("counts");
    this.filter = fromAddress(location.search);
    this.selected = Number(new URLSearchParams(location.search).get("at")) || 0;
    this.lasting = "";  // what is to be said of the connection as long as nothing else is
    this.buffer = [];
    this.shown = null;  // indexes that pass the filter, or null for all
    this.passing = null;
    this.asked = {};  // name of a filter → the seqs that the server named
    this.matches = null;
    this.rows = new Rows(this.urls.timeline, {
      arrived: (rows) => this.#arrived(rows),
      failed: (error) => this.#say(`Rows did not arrive (${error.message}); trying again.`),
    });
    this.header = new LiveHeader(root.querySelector("#session-head"), this.urls.me);
    this.spoken = part("provisional");
    this.speaking = new Speaking(() => this.#drawSpoken());
    this.details = new Details(part("details"), (seq) => `${this.urls.events}${seq}/?fragment=1`);
    this.overview = new Overview({
      canvas: part("canvas"), strip: part("strip"), tip: part("tip"),
      choose: (index) => this.select(this.outline.seq[index], { where: "center" }),
      describe: (index) => this.#describe(index),
      clock: (date, every) => this.#tick(date, every),
    });
  }

  async start() {
    const drawn = [...this.box.querySelectorAll("[data-seq]")].map((row) => Number(row.dataset.seq));
    if (drawn.length) this.rows.want(drawn.slice(0, 200));  // beside the outline: the first screen is there at once
    await this.#loadOutline();
    this.#makeList();
    this.#liveness();
    this.#listen();
    this.#keys();
    await this.#ask(...ASKED);
    this.#applyFilter();
    this.#open();
    this.#follow();
    followStatus(this.urls.status, (posts) => this.overview.setPosts(posts), (at) => this.#tick(at, 1e3));
    if (this.filter.q) this.#find(this.filter.q, false);
    this.root.dataset.ready = "";
  }

  // --- the whole session ---------------------------------------------------------------------------------------

  async #loadOutline() {
    for (let attempt = 0; ; attempt++) {
      try {
        const answer = await fetch(this.urls.outline, { credentials: "same-origin" });
        if (!answer.ok) throw new Error(`answer ${answer.status}`);
        this.outline = new Outline(await answer.json());
        break;
      } catch (error) {
        if (attempt >= 5) throw error;
        this.#say("The overview did not arrive; trying again.");
        await new Promise((done) => setTimeout(done, 500 * 2 ** attempt));
      }
    }
    this.#say("");
    this.overview.setOutline(this.outline);
    this.#counts();
    this.header.long(this.#seconds);
  }

  /** How long the session is by its events; NaN without times. */
  get #seconds() {
    return (this.outline.span - this.outline.earliest) / 1000 || NaN;
  }

  #counts() {
    const untimed = this.root.querySelector('[data-part="untimed"]');
    const count = this.outline.untimed;
    untimed.hidden = !count;
    untimed.textContent = count === this.outline.length
      ? "No event has a readable time: the lanes show their order."
      : `Not drawn: ${count} without a readable time. The transcript has them in the order of their file.`;
    const counts = this.outline.counts();
    this.#chips(counts);
    const body = this.table?.tBodies[0];
    if (!body) return;
    body.replaceChildren(...Object.entries(counts).map(([lane, { count, failed, duration_ms: ms }]) => {
      const line = document.createElement("tr");
      const head = document.createElement("th");
      head.scope = "row";
      head.textContent = lane;
      line.append(head, ...[count, failed || "–", ms ? milliseconds(ms) : "–"].map((value) => {
        const cell = document.createElement("td");
        cell.className = "number";
        cell.textContent = String(value);
        return cell;
      }));
      return line;
    }));
  }

  /** The filters of lanes count on; those of lanes that have nothing stay hidden. */
  #chips(counts) {
    let failed = 0;
    for (const [lane, line] of Object.entries(counts)) {
      failed += line.failed;
      const chip = this.root.querySelector(`[data-filter="lane"][data-value="${CSS.escape(lane)}"]`);
      if (!chip) continue;
      const number = numberText(line.count);
      if (chip.lastElementChild.textContent !== number) chip.lastElementChild.textContent = number;
      chip.hidden = false;
    }
    if (failed) this.root.querySelector('[data-filter="status"]').hidden = false;
  }

  // --- the transcript ------------------------------------------------------------------------------------------

  #makeList() {
    const sheet = document.createElement("div");
    sheet.className = "transcript-sheet";
    sheet.setAttribute("role", "none");
    this.box.replaceChildren(sheet);
    this.box.classList.add("virtual");
    const probe = createRow(document);
    sheet.append(probe);
    const rowHeight = probe.getBoundingClientRect().height || 28;
    probe.remove();
    this.list = new VirtualList({
      box: this.box, sheet, rowHeight,
      create: () => createRow(document),
      fill: (element, place) => this.#fill(element, place),
      seen: (first, end) => this.#seen(first, end),
    });
  }

  get count() {
    return this.shown ? this.shown.length : this.outline.length;
  }

  /** Place in the list → index in the outline, and back (-1 when filtered out). */
  #index(place) {
    return this.shown ? this.shown[place] : place;
  }

  #place(index) {
    if (!this.shown || index < 0) return index;
    const place = placeIn(this.shown, index);
    return this.shown[place] === index ? place : -1;
  }

  #fill(element, place) {
    const index = this.#index(place);
    const seq = this.outline.seq[index];
    const row = this.rows.get(seq);
    if (row) {
      fillRow(element, row, {
        gap: finite(this.outline.gap[index]), outcome: this.outline.outcome(index),
        clock: (at) => clock(new Date(at), zone()), href: (one) => this.#href(one),
      });
    } else fillPlaceholder(element, seq);
    const chosen = seq === this.selected;
    element.classList.toggle("selected", chosen);
    element.classList.toggle("match", Boolean(this.matchSet?.has(index)));
    element.tabIndex = chosen ? 0 : -1;
    element.firstElementChild.tabIndex = -1;
    if (chosen) element.setAttribute("aria-current", "true");
    else element.removeAttribute("aria-current");
    element.setAttribute("aria-posinset", place + 1);
    element.setAttribute("aria-setsize", this.count);
  }

  #seen(first, end) {
    const seqs = [];
    for (let place = first; place < end; place++) seqs.push(this.outline.seq[this.#index(place)]);
    // While the bar is dragged every frame shows other rows: only where it rests is asked for.
    const missing = seqs.some((seq) => !this.rows.cache.has(seq));
    clearTimeout(this.asking);
    if (!missing) return;
    const now = performance.now();
    const still = now - (this.lastSeen ?? 0) > 90;
    this.lastSeen = now;
    if (still) this.rows.want(seqs);
    else this.asking = setTimeout(() => this.rows.want(seqs), 60);
  }

  #arrived(rows) {
    this.#say("");
    if (!this.list) return;
    const seqs = new Set(rows.map((row) => row.seq));
    this.list.refresh((place) => seqs.has(this.outline.seq[this.#index(place)]));
  }

  #open() {
    const index = this.outline.indexOf(this.selected);
    if (index >= 0) {
      this.list.show(this.#place(index), "center");
      this.overview.select(index);
      this.following.moved();
    } else if (this.following.on) this.following.toEnd();
    this.list.paint();
  }

  // --- selecting -----------------------------------------------------------------------------------------------

  #href(seq) {
    return `${location.pathname}${toAddress(location.search, this.filter, seq)}`;
  }

  /** Select event `seq` in all three panes and in the address. */
  select(seq, { where = "nearest", focus = false } = {}) {
    const index = this.outline.indexOf(seq);
    if (index < 0) return;
    this.selected = seq;
    if (this.passing && !this.passing[index]) this.#clearFilter();  // asked for by name: it must be seen
    const place = this.#place(index);
    if (place < this.count - 1) this.following.set(false);
    this.list.show(place, where);
    this.following.moved();
    this.list.paint(true);
    this.overview.select(index);
    this.details.show(seq);
    this.#address();
    this.said.textContent = this.#describe(index);
    if (focus || this.box.contains(document.activeElement)) {
      this.list.rows.get(place)?.focus({ preventScroll: true });
    }
  }

  #selectIndex(index, options) {
    if (index >= 0) this.select(this.outline.seq[index], options);
  }

  /** Where the panes stand one above the other, what was chosen shows in both: the transcript goes to the upper edge. */
  #besideDetails() {
    const pane = this.root.querySelector(".details-pane");
    const below = pane.getBoundingClientRect().top > innerHeight * 0.66;
    if (below) this.box.scrollIntoView({ block: "start" });
  }

  get #at() {
    return this.outline.indexOf(this.selected);
  }

  #move(by) {
    const place = this.#place(this.#at);
    const to = place < 0 ? Math.round(this.list.scroll.top / this.list.rowHeight) : place + by;
    if (to >= 0 && to < this.count) this.#selectIndex(this.#index(to));
  }

  #lastEvent() {
    this.#selectIndex(this.#index(this.count - 1));
    if (this.header.live) this.following.set(true);
  }

  #jump(direction, wanted, nothing) {
    const from = this.#at < 0 ? (direction > 0 ? -1 : this.outline.length) : this.#at;
    const index = this.outline.next(from, direction, (i) => (!this.passing || this.passing[i]) && wanted(i));
    if (index >= 0) this.#selectIndex(index, { where: "center" });
    else this.#say(`No ${direction > 0 ? "later" : "earlier"} ${nothing}.`, 3000);
  }

  #describe(index) {
    const { outline } = this;
    const row = this.rows.cache.get(outline.seq[index]);
    const lane = outline.laneName(index);
    const ms = outline.duration[index];
    const named = row?.tool && ["tool", "decision"].includes(lane) ? `${row.tool} ${stageOf(row)}`.trim() : lane;
    const words = [
      named, outline.agentName(index), outline.isOpen(index) ? "no outcome" : outline.stateName(index),
      ms ? milliseconds(ms) : "",
      Number.isNaN(outline.at[index]) ? "no readable time" : clock(new Date(outline.start + outline.at[index]), zone()),
    ].filter(Boolean).join(" · ");
    const text = row?.text ? `: ${row.text.slice(0, 120)}` : "";
    return `${words}${text}`;
  }

  #tick(date, every) {
    const time = clock(date, zone());
    if (every >= 24 * 3600e3) return exactTime(date.toISOString()).slice(0, 10);
    if (every >= TICK_SECONDS) return time.slice(0, 5);
    return every < 1000 ? `${time}.${String(date.getMilliseconds()).padStart(3, "0")}` : time;
  }

  /** A sentence over the transcript, for a while or until the next; without one, how the connection is. */
  #say(sentence, forMs = 0) {
    this.connection.textContent = sentence || this.lasting;
    this.connection.classList.toggle("waiting", !sentence && Boolean(this.lasting));
    clearTimeout(this.saying);
    if (forMs) this.saying = setTimeout(() => this.#say(""), forMs);
  }

  #last(sentence) {
    if (sentence === this.lasting) return;
    this.lasting = sentence;
    this.#say("");
  }

  // --- filters and find ----------------------------------------------------------------------------------------

  /** Ask the server which rows have the chosen values of the filters `names`. */
  async #ask(...names) {
    await Promise.all(names.map(async (name) => {
      delete this.asked[name];
      if (!this.filter[name].size) return;
      try {
        const { seqs } = await matching(this.urls.matches, { [name]: [...this.filter[name]] });
        this.asked[name] = new Set(seqs);
      } catch {
        this.#say(`The rows of this ${name} did not arrive.`, 5000);
      }
    }));
  }

  #applyFilter() {
    this.passing = mask(this.outline, this.filter, this.asked);
    this.shown = positions(this.passing);
    this.overview.mark({ shown: this.passing });
    if (this.none) this.none.hidden = this.count > 0;
    const index = this.#at;
    this.list.setCount(this.count);
    if (this.following.on) this.following.toEnd();
    else if (this.#place(index) >= 0) this.list.show(this.#place(index), "center");
    this.following.moved();
    this.list.paint(true);
    for (const chip of this.root.querySelectorAll("[data-filter]")) {
      const { filter, value } = chip.dataset;
      const on = filter in WORDS ? this.filter[filter] === value : this.filter[filter].has(value);
      if (on) chip.setAttribute("aria-current", "true");
      else chip.removeAttribute("aria-current");
    }
    const clear = this.root.querySelector("[data-clear]");
    if (clear) clear.hidden = isEmpty(this.filter);
  }

  #clearFilter() {
    for (const name of LISTS) this.filter[name].clear();
    for (const name of Object.keys(WORDS)) this.filter[name] = "";
    this.asked = {};
    this.#applyFilter();
  }

  async #toggle(name, value) {
    if (name in WORDS) this.filter[name] = this.filter[name] === value ? "" : value;
    else if (!this.filter[name].delete(value)) this.filter[name].add(value);
    if (ASKED.includes(name)) await this.#ask(name);
    this.#applyFilter();
    this.#address();
  }

  #address() {
    history.replaceState(history.state, "", this.#href(this.selected));
    this.search = location.search;
  }

  async #find(words, go = true) {
    this.finding?.abort();
    this.filter.q = words;
    this.#address();
    if (!words) return this.#matched(null, "");
    this.finding = new AbortController();
    const { signal } = this.finding;
    this.findCount.textContent = "…";
    try {
      const { seqs } = await matching(this.urls.matches, { q: words }, { signal });
      const found = this.#indexes(seqs);
      this.#matched(found, found.length ? `${found.length} found` : "nothing found");
      if (go || !this.selected) this.#step(1, this.#at - 1);
    } catch (error) {
      if (error.name !== "AbortError") this.#matched(null, "search failed");
    }
  }

  #indexes(seqs) {
    return seqs.map((seq) => this.outline.indexOf(seq)).filter((index) => index >= 0).sort((a, b) => a - b);
  }

  #matched(found, text) {
    this.matches = found;
    this.matchSeqs = found?.map((index) => this.outline.seq[index]);
    this.matchSet = found && new Set(found);
    this.findCount.textContent = text;
    this.overview.mark({ matches: found });
    this.list.paint(true);
  }

  #step(direction, from = this.#at) {
    if (!this.matches?.length) return;
    const index = step(this.matches, from, direction);
    this.#selectIndex(index, { where: "center" });
    this.findCount.textContent = `${this.matches.indexOf(index) + 1} of ${this.matches.length}`;
  }

  // --- live ----------------------------------------------------------------------------------------------------

  #liveness() {
    const running = () => this.header.live;
    this.following = new Following({
      list: this.list, box: this.box, live: running, on: this.urls.isLive === "true" && !this.selected,
      pill: this.root.querySelector('[data-part="pill"]'), toggle: this.root.querySelector('[data-part="follow"]'),
      changed: (on) => this.overview.follow(on),
    });
    this.overview.follow(this.following.on);
  }

  #follow() {
    const url = new URL(this.urls.socket, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    this.stop = follow(url.href, this.outline.lastSeq, (rows) => this.#take(rows), {
      read: (seq, { signal }) => this.#page(seq, signal),
      on: {
        up: () => this.#connected(true),
        down: () => this.#connected(false),
        ended: (sentence) => { this.header.connected(false); this.#last(`${sentence} Load the page again.`); },
        behind: (rows) => this.#last(rows ? `Catching up: ${numberText(rows)} rows to go.` : ""),
        revision: (revision) => { if (revision !== this.outline.revision) this.#reload(); },
        state: (state) => this.#state(state),
        presence: (message) => this.header.watching(message),
        provisional: (message) => this.speaking.say(message),
        deleted: () => { this.header.connected(false); this.#last("This session was deleted."); },
      },
    });
    const network = () => { if (this.wasDown) this.#connected(false); };
    addEventListener("online", () => { network(); this.stop.now(); });
    addEventListener("offline", network);
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.stop.now(); });
  }

  #connected(up) {
    this.header.connected(up);
    const back = up && this.wasDown;
    this.wasDown = !up;
    this.#last(up ? "" : navigator.onLine ? "The connection was lost; coming back by itself."
      : "This machine is offline; the page goes on by itself.");
    if (back) this.#say("The connection was lost and is back.", 3000);
  }

  async #page(seq, signal) {
    const answer = await fetch(`${this.urls.timeline}?after_index=${seq}&limit=${PAGE}`, { signal, credentials: "same-origin" });
    if (!answer.ok) throw new Error(`answer ${answer.status}`);
    return (await answer.json()).entries;
  }

  #take(rows) {
    this.buffer.push(...rows);
    if (this.flushing) return;
    this.flushing = true;
    // A hidden tab draws no frames, yet its transcript must not grow a backlog.
    const flush = () => { this.flushing = false; this.#flush(); };
    if (document.hidden) setTimeout(flush, 200);
    else requestAnimationFrame(flush);
  }

  #flush() {
    const rows = this.buffer;
    this.buffer = [];
    const before = this.outline.length, shownBefore = this.count;
    const from = this.outline.add(rows);
    if (this.outline.length === before) return;
    this.rows.put(rows);
    this.header.grew(this.#seconds);
    this.speaking.rows(rows);
    if (this.passing) {
      for (const name of ASKED) {
        for (const row of rows) if (this.filter[name].has(row[name])) this.asked[name]?.add(row.seq);
      }
      this.passing = mask(this.outline, this.filter, this.asked, { from, before: this.passing });
      this.shown = positions(this.passing, { from, before: this.shown });
      this.overview.mark({ shown: this.passing });
    }
    this.overview.grew(from);
    if (from === before) {
      const begun = new Set(rows.map((row) => row.call));  // an outcome changes the row of its attempt
      this.list.refresh((place) => begun.has(this.outline.seq[this.#index(place)]));
    } else this.#rowsMoved();
    this.list.setCount(this.count);
    for (const element of this.list.rows.values()) element.setAttribute("aria-setsize", this.count);
    if (this.none) this.none.hidden = this.count > 0;
    this.following.grew(this.count - shownBefore);
    this.#lookAtHeader();
  }

  /** Rows stand further down than they did: those of one producer came after later ones of another. */
  #rowsMoved() {
    this.overview.selected = this.#at;
    if (this.matches) {
      this.matches = this.#indexes(this.matchSeqs);
      this.matchSet = new Set(this.matches);
      this.overview.mark({ matches: this.matches });
    }
    this.list.rows.forEach((element, place) => { if (place < this.count) this.#fill(element, place); });
  }

  #drawSpoken() {
    this.spoken.replaceChildren(...[...this.speaking.words].map(([role, text]) => {
      const line = document.createElement("p");
      line.className = `lane-${role === "user" || role === "assistant" ? role : "other"}`;
      const label = document.createElement("span");
      label.className = "row-label";
      label.textContent = LABELS[role] ?? visible(role);
      const words = document.createElement("span");
      words.className = "spoken-words";
      const inner = document.createElement("bdi");
      inner.textContent = `${text.length > SPOKEN ? "… " : ""}${visible(text.slice(-SPOKEN))} …`;
      words.append(inner);
      line.append(label, words);
      return line;
    }));
  }

  #lookAtHeader() {
    if (this.looking) return;
    this.looking = setTimeout(() => {
      this.looking = 0;
      this.#counts();
      document.dispatchEvent(new Event("auditweb:look"));
    }, LOOK_MS);
  }

  /** The times of the session are read in another way now, or rows are gone. */
  async #reload() {
    if (this.reloading) return;  // the next ping names the revision again
    this.reloading = true;
    this.rows.clear();
    try {
      await this.#loadOutline();
    } catch {
      return;
    } finally {
      this.reloading = false;
    }
    this.stop.seen(this.outline.lastSeq);
    const since = [...this.rows.cache.values()].filter(({ seq }) => seq > this.outline.lastSeq);
    if (this.outline.add(since.sort((a, b) => a.seq - b.seq)) < this.outline.length) this.overview.setOutline(this.outline);
    this.#applyFilter();
    this.#rowsMoved();
    this.details.forget();
    this.#lookAtHeader();
  }

  #state(state) {
    const ended = this.header.told(state);
    this.spoken.hidden = !this.header.live;
    this.following.draw();
    if (ended) {
      this.speaking.forget();
      this.#say("The session has ended.", 5000);
      // Nobody reads the details of an event: what became of the whole is of more use now.
      const open = !this.root.querySelector('[data-pane="summary"]').hidden;
      if (open || !this.selected) this.#tab("summary");
    }
    this.#lookAtHeader();
  }

  // --- hands ---------------------------------------------------------------------------------------------------

  #listen() {
    const { box, root } = this;
    box.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;  // a link opened in a new tab
      const row = event.target.closest("[data-seq]");
      if (!row) return;
      event.preventDefault();
      if (getSelection()?.toString() && event.target.closest(".row-words")) return;  // somebody marks text
      this.select(Number(row.dataset.seq), { focus: true });
      this.#besideDetails();
    });
    box.addEventListener("keydown", (event) => {
      const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!by || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      this.#move(by);
    });
    root.addEventListener("click", (event) => {
      const chip = event.target.closest("[data-filter]");
      const act = event.target.closest("[data-act]");
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      if (chip) {
        event.preventDefault();
        this.#toggle(chip.dataset.filter, chip.dataset.value);
      } else if (event.target.closest("[data-clear]")) {
        event.preventDefault();
        this.#clearFilter();
        this.#address();
      } else if (event.target.closest("[data-tab]")) {
        event.preventDefault();
        this.#tab(event.target.closest("[data-tab]").dataset.tab);
      } else if (act) this.#act(act.dataset.act);
      else this.#inside(event);
    });
    this.findForm.addEventListener("submit", (event) => {
      event.preventDefault();
      const words = this.findForm.elements.q.value.trim();
      if (words === this.filter.q && this.matches) this.#step(1);
      else this.#find(words);
    });
    this.findForm.elements.q.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        this.findForm.elements.q.value = "";
        this.#find("");
        box.focus({ preventScroll: true });
      } else if (event.key === "Enter" && event.shiftKey) {
        event.preventDefault();
        this.#step(-1);
      }
    });
    root.querySelector('[data-part="canvas"]').addEventListener("keydown", (event) => this.#overviewKey(event));
    document.addEventListener("auditweb:zone", () => { this.list.paint(true); this.overview.draw(); });
    document.addEventListener("auditweb:theme", () => this.overview.recolor());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.overview.recolor());
    // Only another query is another view: a link to a part of this page (#main) comes by here too.
    this.search = location.search;
    addEventListener("popstate", () => { if (location.search !== this.search) location.reload(); });
  }

  /** A link of the details to another event of this session needs no new page. */
  #inside(event) {
    const link = event.target.closest('[data-part="details"] a[href]');
    const url = link && new URL(link.href);
    const seq = url?.pathname === location.pathname ? Number(url.searchParams.get("at")) : 0;
    if (!seq) return;
    event.preventDefault();
    this.select(seq, { where: "center" });
  }

  #overviewKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const acts = {
      ArrowRight: () => this.#move(1), ArrowLeft: () => this.#move(-1),
      ArrowDown: () => this.#move(1), ArrowUp: () => this.#move(-1),
      "+": () => this.overview.zoomBy(1.6), "=": () => this.overview.zoomBy(1.6),
      "-": () => this.overview.zoomBy(1 / 1.6), 0: () => this.overview.whole(),
      Home: () => this.#selectIndex(this.#index(0)), End: () => this.#lastEvent(),
    };
    if (!acts[event.key]) return;
    event.preventDefault();
    acts[event.key]();
  }

  #act(name) {
    const acts = {
      "find-next": () => this.#step(1), "find-previous": () => this.#step(-1),
      "zoom-in": () => this.overview.zoomBy(1.6), "zoom-out": () => this.overview.zoomBy(1 / 1.6),
      "zoom-whole": () => this.overview.whole(), "copy-link": () => this.#copyLink(),
    };
    acts[name]?.();
  }

  #copyLink() {
    copy(location.origin + this.#href(this.selected), "Link copied");
  }

  #tab(name) {
    for (const pane of this.root.querySelectorAll("[data-pane]")) pane.hidden = pane.dataset.pane !== name;
    for (const tab of this.root.querySelectorAll("[data-tab]")) {
      if (tab.dataset.tab === name) tab.setAttribute("aria-current", "true");
      else tab.removeAttribute("aria-current");
    }
    const pane = this.root.querySelector('[data-pane="summary"]');
    if (name === "summary" && pane.dataset.from) this.#loadSummary(pane);
  }

  async #loadSummary(pane) {
    const text = await fetch(pane.dataset.from, { credentials: "same-origin" })
      .then((answer) => (answer.ok && !answer.redirected ? answer.text() : ""), () => "");
    if (!text) return this.#say("The summary did not arrive.", 5000);
    pane.replaceChildren(...new DOMParser().parseFromString(text, "text/html").body.childNodes);
  }

  #keys() {
    const turn = (i) => ["user", "assistant"].includes(this.outline.laneName(i));
    const failed = (i) => this.outline.failed(i);
    const interrupted = (i) => this.outline.laneName(i) === "interruption";
    const raw = () => {
      const fold = this.root.querySelector("[data-raw]");
      if (!fold) return;
      this.#tab("details");
      fold.open = !fold.open;
      if (fold.open) fold.scrollIntoView({ block: "nearest" });
    };
    for (const [key, says, run] of [
      ["j", "next event", () => this.#move(1)],
      ["k", "previous event", () => this.#move(-1)],
      ["]", "next turn", () => this.#jump(1, turn, "turn")],
      ["[", "previous turn", () => this.#jump(-1, turn, "turn")],
      ["e", "next failure", () => this.#jump(1, failed, "failure")],
      ["E", "previous failure", () => this.#jump(-1, failed, "failure")],
      ["i", "next interruption", () => this.#jump(1, interrupted, "interruption")],
      ["I", "previous interruption", () => this.#jump(-1, interrupted, "interruption")],
      ["g", "first event", () => this.#selectIndex(this.#index(0))],
      ["G", "last event", () => this.#lastEvent()],
      ["f", "follow the end, or stop following", () => this.following.set(!this.following.on)],
      ["/", "find in this session", () => { this.findForm.elements.q.focus(); this.findForm.elements.q.select(); }],
      ["n", "next match", () => this.#step(1)],
      ["N", "previous match", () => this.#step(-1)],
      ["y", "copy the link to this event", () => this.#copyLink()],
      ["r", "show the raw line", raw],
      ["s", "summary", () => this.#tab(
        this.root.querySelector('[data-pane="summary"]').hidden ? "summary" : "details")],
    ]) register(key, says, run);
    mention("Esc", "in Find: clear it and go to the transcript");
    mention("↑ ↓", "in the transcript: previous and next event");
    mention("← →", "in the overview: previous and next event");
    mention("+ − 0", "in the overview: zoom in, zoom out, show all");
  }
}

const root = globalThis.document?.querySelector("[data-session]");
if (root) {
  const page = new SessionPage(root);
  page.start().catch(() => {
    page.connection.textContent = "This page could not be brought to life; what you see is as it was loaded.";
  });
}

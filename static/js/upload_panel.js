/**
 * Files dropped anywhere on the page (or chosen with a `[data-choose-files]` button) go to the server, and a panel shows
 * each on its way: waiting, sending, queued, reading, done. Going to another page keeps what is being read in the panel.
 */
import { begin, cancel, Cancelled, noStore, refusal, share, step, upload, UploadError, watch } from "./upload.js";

const AT_ONCE = 2;  // files sent at the same time; the server reads one at a time per worker anyway
const KEPT = "auditweb.uploads";  // in sessionStorage: [{id, name, size}] of what this tab watches
const WORDS = {
  waiting: "waiting", sending: "sending", queued: "queued", reading: "reading", done: "done",
  duplicate: "already here", failed: "failed", cancelled: "cancelled",
};
const grouped = new Intl.NumberFormat("en");
const number = (n) => grouped.format(n).replaceAll(",", "\u202f");  // as auditweb/templatetags/words.py writes them
const count = (n, one, many = `${one}s`) => `${number(n)} ${n === 1 ? one : many}`;

function storage(name) {
  try {
    return globalThis[name] ?? noStore;
  } catch {
    return noStore;  // reading the property itself throws when the browser blocks storage
  }
}

/** The line of text below a file's name: how far, how fast, what was found. */
export function sentence(state) {
  const { phase, dump } = state;
  if (state.trouble) return state.trouble;
  if (phase === "waiting") return "Waits for the files before it.";
  if (phase === "sending") return `${percent(share(state))} of ${bytes(state.size)} sent`;
  if (phase === "queued") return "All bytes are here; waits for a worker. You can leave this page.";
  if (phase === "reading") {
    const speed = dump?.lines_per_s ? ` · ${number(Math.round(dump.lines_per_s))} lines/s` : "";
    return `${percent(share(state))} · ${count(dump?.lines ?? 0, "line")}${speed}`;
  }
  if (phase === "cancelled") return "Cancelled. Nothing more is read of it.";
  if (phase === "duplicate") return "These very bytes were uploaded before; nothing was imported twice.";
  if (phase === "done" && dump?.grown) return `Continues a dump that was here: only the rest was read. Now ${count(dump.lines, "line")} · ${count(dump.events, "event")}`;
  if (phase === "done") return `${count(dump?.lines ?? 0, "line")} · ${count(dump?.events ?? 0, "event")}`;
  return "";
}

const percent = (part) => `${Math.floor((part ?? 0) * 100)} %`;

/** `5.2 MiB`. */
export function bytes(n) {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  let step = 0;
  while (n >= 1024 && step < units.length - 1) { n /= 1024; step += 1; }
  return `${step ? n.toFixed(1) : n} ${units[step]}`;
}

function link(href, text) {
  const a = document.createElement("a");
  a.href = href;
  a.textContent = text;
  return a;
}

/** One file's entry in the panel. */
class Entry {
  constructor(template, state, { onCancel, announce }) {
    this.state = state;
    this.announce = announce;
    this.element = template.content.firstElementChild.cloneNode(true);
    this.at = (name) => this.element.querySelector(`[data-part="${name}"]`);
    this.at("cancel").addEventListener("click", onCancel);
    this.at("cancel").setAttribute("aria-label", `Cancel ${state.name}`);
    this.at("name").textContent = state.name;
    this.at("name").title = state.name;
    this.at("progress").setAttribute("aria-label", `Progress of ${state.name}`);
    this.draw();
  }

  tell = (message) => {
    const before = this.state.phase;
    this.state = step(this.state, message);
    this.draw();
    if (before !== this.state.phase) this.announce(`${this.state.name}: ${WORDS[this.state.phase]}. ${this.state.error}`);
  };

  get running() { return ["waiting", "sending", "queued", "reading"].includes(this.state.phase); }

  draw() {
    const { phase, dump, error } = this.state;
    const badge = this.at("phase");
    badge.className = `badge ${phase}`;
    badge.textContent = WORDS[phase];
    this.at("cancel").hidden = !this.running;
    const bar = this.at("progress");
    const part = share(this.state);
    bar.hidden = !this.running;
    if (part === null) bar.removeAttribute("value");
    else bar.value = part;
    this.at("text").textContent = sentence(this.state);
    this.at("text").hidden = !this.at("text").textContent;
    this.at("fault").textContent = error;
    this.at("fault").hidden = !error;
    const links = [];
    for (const session of dump?.sessions ?? []) links.push(link(session.url, session.title || "Session"));
    for (const bus of dump?.status_buses ?? []) links.push(link(bus.url, `Status: ${bus.name} (${number(bus.entries)})`));
    for (const member of dump?.members ?? []) if (member.id !== dump.id) links.push(link(member.url, `${member.name}: ${member.state}`));
    if (dump?.bad_lines) links.push(link(`${pageOf(dump)}#quarantine`, `${count(dump.bad_lines, "line")} could not be read`));
    if (dump?.naive_lines && dump.zone_source === "assumed") links.push(link(`${pageOf(dump)}#zone`, "Tell the time zone"));
    if (dump?.id) links.push(link(pageOf(dump), dump.waits_for_consent ? "Import what could be read" : "Dump"));
    const holder = this.at("links");
    const now = links.map((a) => `${a.href} ${a.textContent}`).join("\n");
    if (holder.dataset.now !== now) {
      holder.dataset.now = now;
      holder.replaceChildren(...links);
      holder.hidden = links.length === 0;
    }
  }
}

const pageOf = (dump) => `/dumps/${encodeURIComponent(dump.id)}/`;

/** The folders and files of a drop: `[{file, isFolder}]`. Must be read before the event handler returns. */
export function dropped(transfer) {
  const found = [];
  for (const item of transfer.items ?? []) {
    if (item.kind !== "file") continue;
    const isFolder = Boolean(item.webkitGetAsEntry?.()?.isDirectory);
    const file = item.getAsFile();
    if (file) found.push({ file, isFolder });
  }
  return found.length ? found : [...(transfer.files ?? [])].map((file) => ({ file, isFolder: false }));
}

/** Make the page take files. Does nothing on pages without the panel (signed out). */
export function start() {
  const panel = document.getElementById("uploads");
  if (!panel) return;
  const list = panel.querySelector("ul");
  const template = document.getElementById("upload-entry");
  const says = panel.querySelector("[data-announce]");
  const sheet = document.getElementById("drop-sheet");
  const token = document.querySelector('meta[name="csrf-token"]')?.content ?? "";
  const team = panel.dataset.team ?? "";
  const api = panel.dataset.api;
  const entries = new Set();
  const waiting = [];
  let busy = 0;

  const announce = (text) => { says.textContent = text; document.dispatchEvent(new CustomEvent("auditweb:look")); };

  function remember() {
    const running = [...entries].filter((entry) => entry.state.dump?.id && ["queued", "reading"].includes(entry.state.phase));
    try {
      storage("sessionStorage").setItem(KEPT, JSON.stringify(running.map(({ state }) => ({ id: state.dump.id, name: state.name, size: state.size }))));
    } catch {
      // Without storage the panel forgets on the next page; the dumps page still lists everything.
    }
  }

  function show(state, onCancel) {
    const entry = new Entry(template, state, { onCancel: () => onCancel(), announce });
    const tell = entry.tell;
    entry.tell = (message) => { tell(message); remember(); };
    entries.add(entry);
    list.prepend(entry.element);
    panel.hidden = false;
    return entry;
  }

  function add(found) {
    for (const { file, isFolder } of found) {
      const why = refusal(file, isFolder);
      if (why) {
        show(begin(file), () => {}).tell({ type: "failed", sentence: why });
        continue;
      }
      const aborter = new AbortController();
      const entry = show(begin(file), () => {
        aborter.abort();
        if (entry.state.dump?.id) cancel(entry.state.dump.id, { api, token });
        if (entry.state.phase === "waiting" || entry.state.dump) entry.tell({ type: "cancelled" });
      });
      waiting.push({ file, entry, signal: aborter.signal });
    }
    next();
  }

  async function next() {
    while (busy < AT_ONCE && waiting.length) {
      const { file, entry, signal } = waiting.shift();
      if (signal.aborted) continue;
      busy += 1;
      let sending = true;
      const free = () => { if (sending) { sending = false; busy -= 1; next(); } };
      // The next file may be sent while this one is being read.
      const tell = (message) => { entry.tell(message); if (message.type === "dump") free(); };
      upload(file, tell, { api, team, token, signal, store: storage("localStorage") }).finally(free);
    }
  }

  function watchAgain() {
    let kept = [];
    try {
      kept = JSON.parse(storage("sessionStorage").getItem(KEPT) ?? "[]");
    } catch {
      // Not ours, or damaged: start with an empty panel.
    }
    for (const { id, name, size } of kept) {
      const aborter = new AbortController();
      const entry = show({ ...begin({ name, size }), phase: "queued", sent: size, dump: { id } }, () => {
        aborter.abort();
        cancel(id, { api, token });
        entry.tell({ type: "cancelled" });
      });
      watch(id, entry.tell, { api, token, signal: aborter.signal }).catch((error) => {
        if (error instanceof Cancelled) return;
        entry.tell({ type: "failed", sentence: error instanceof UploadError && error.status === 404 ? "This dump was deleted." : error.message });
      });
    }
  }

  const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  let depth = 0;  // dragenter and dragleave come for every element on the way
  addEventListener("dragenter", (event) => { if (carriesFiles(event)) { depth += 1; sheet.hidden = false; } });
  addEventListener("dragleave", (event) => { if (carriesFiles(event) && --depth <= 0) { depth = 0; sheet.hidden = true; } });
  addEventListener("dragover", (event) => { if (carriesFiles(event)) { event.preventDefault(); event.dataTransfer.dropEffect = "copy"; } });
  addEventListener("drop", (event) => {
    depth = 0;
    sheet.hidden = true;
    if (!carriesFiles(event)) return;
    event.preventDefault();
    add(dropped(event.dataTransfer));
  });

  const input = document.getElementById("file-input");
  input.addEventListener("change", () => {
    add([...input.files].map((file) => ({ file, isFolder: false })));
    input.value = "";
  });
  document.addEventListener("click", (event) => { if (event.target.closest?.("[data-choose-files]")) input.click(); });

  panel.querySelector("[data-close]").addEventListener("click", () => {
    for (const entry of [...entries]) if (!entry.running) { entry.element.remove(); entries.delete(entry); }
    panel.hidden = entries.size === 0;
  });

  addEventListener("beforeunload", (event) => {
    if ([...entries].some(({ state }) => state.phase === "sending" || state.phase === "waiting")) event.preventDefault();
  });
  watchAgain();
}

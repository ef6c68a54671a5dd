/** The pane that shows everything about one event: the server's fragment, kept for a while, newest wish wins. */
import { refresh } from "./clock.js";

const KEPT = 60;  // fragments, for stepping back and forth
const PAUSE_MS = 60;  // while a key is held down, only where it stops is fetched

export class Details {
  /** `pane` is filled with the fragment of the event; `address(seq)` says where it is. */
  constructor(pane, address, {
    fetch = globalThis.fetch, later = setTimeout, cancel = clearTimeout, parse = parseHtml, tidy = refresh,
  } = {}) {
    Object.assign(this, { pane, address, parse, tidy });
    // The browser's own functions refuse to be called as methods of something else.
    this.fetch = (...args) => fetch(...args);
    this.later = (...args) => later(...args);
    this.cancel = (...args) => cancel(...args);
    this.cache = new Map();
    this.seq = Number(pane.dataset.seq) || 0;
  }

  show(seq) {
    if (seq === this.seq) return;
    this.seq = seq;
    this.cancel(this.waiting);
    this.request?.abort();
    if (this.cache.has(seq)) return this.#put(seq, this.cache.get(seq));
    this.pane.setAttribute("aria-busy", "true");
    this.waiting = this.later(() => this.#load(seq), PAUSE_MS);
  }

  /** Forget what was fetched: the times of the session are read in another way now. */
  forget() {
    this.cache.clear();
    const { seq } = this;
    this.seq = 0;
    if (seq) this.show(seq);
  }

  async #load(seq) {
    this.request = new AbortController();
    try {
      const answer = await this.fetch(this.address(seq), { signal: this.request.signal, credentials: "same-origin" });
      if (!answer.ok || answer.redirected) throw new Error(`answer ${answer.status}`);
      const text = await answer.text();
      this.cache.set(seq, text);
      if (this.cache.size > KEPT) this.cache.delete(this.cache.keys().next().value);
      if (seq === this.seq) this.#put(seq, text);
    } catch (error) {
      if (error.name === "AbortError" || seq !== this.seq) return;
      this.seq = 0;
      this.pane.removeAttribute("aria-busy");
      const said = document.createElement("p");
      said.className = "notice error";
      said.textContent = "The details did not arrive. Select the row again to ask once more.";
      this.pane.replaceChildren(said);
    }
  }

  #put(seq, text) {
    this.pane.replaceChildren(...this.parse(text));
    this.pane.dataset.seq = String(seq);
    this.pane.removeAttribute("aria-busy");
    this.pane.scrollTop = 0;
    this.tidy(this.pane);
  }
}

const parseHtml = (text) => new DOMParser().parseFromString(text, "text/html").body.childNodes;

/**
 * The sessions list keeps itself up to date: new sessions appear, running ones count on, focus and scroll stay.
 *
 * Asked every two seconds while the tab is looked at; an unchanged list answers 304 without a body.
 */
import { refresh } from "./clock.js";
import { morph } from "./morph.js";

const EVERY_MS = 2000;
const LONGEST_MS = 30_000;

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

/** Keep `part` (with data-rows-url) fresh; returns a stop function. */
export function start(part, {
  fetch = globalThis.fetch, later = setTimeout, cancel = clearTimeout, parse = parseHtml,
} = {}) {
  const state = { etag: part.dataset.etag };
  let failures = 0, timer, stopped = false;
  async function again() {
    cancel(timer);
    if (!document.hidden) {
      try {
        const text = await look(part.dataset.rowsUrl, state, { fetch });
        failures = 0;
        const fresh = text && parse(text).getElementById(part.id);
        if (fresh) {
          refresh(fresh);  // times first, so that comparing does not undo them
          morph(part, fresh);
        }
      } catch {
        failures++;
      }
    }
    if (!stopped) timer = later(again, Math.min(LONGEST_MS, EVERY_MS * 2 ** Math.min(failures, 5)));
  }
  document.addEventListener("visibilitychange", () => { if (!document.hidden && !stopped) again(); });
  timer = later(again, EVERY_MS);
  return () => { stopped = true; cancel(timer); };
}

const parseHtml = (text) => new DOMParser().parseFromString(text, "text/html");

const part = globalThis.document?.querySelector("[data-rows-url]");
if (part) start(part);

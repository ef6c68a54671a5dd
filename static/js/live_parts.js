/**
 * Parts of a page that keep themselves up to date.
 *
 * `<div id="dump" data-live="/dumps/x/?fragment=1">`: the address answers HTML with an element of the same id, which
 * replaces this one piece by piece. Asked every second while the part holds something `[data-running]`, else every ten;
 * not at all while the tab is hidden. A server that does not answer is asked less and less often, up to every 30 s.
 */
import { refresh } from "./clock.js";
import { morph } from "./morph.js";

const RUNNING_MS = 1000;
const IDLE_MS = 10_000;
const LONGEST_MS = 30_000;

/** How long to wait before asking again. */
export function pause(running, failures) {
  return Math.min(LONGEST_MS, (running ? RUNNING_MS : IDLE_MS) * 2 ** Math.min(failures, 5));
}

/** Ask `url` once and bring `parts` up to date. Throws when there is no good answer. */
export async function update(parts, url, { fetch = globalThis.fetch, parse = parseHtml, after = refresh } = {}) {
  const answer = await fetch(url, { headers: { Accept: "text/html", "X-Background": "1" }, credentials: "same-origin" });
  if (!answer.ok || answer.redirected) throw new Error(`${answer.status}`);
  const page = parse(await answer.text());
  for (const part of parts) {
    const fresh = page.getElementById(part.id);
    if (!fresh) throw new Error(`no ${part.id} in the answer`);
    after(fresh);  // times first, so that comparing does not undo them
    morph(part, fresh);
  }
}

const parseHtml = (text) => new DOMParser().parseFromString(text, "text/html");

/** Keep all parts of the page fresh, those with the same address together. `auditweb:look` on document asks at once. */
export function start({ later = setTimeout, stop = clearTimeout } = {}) {
  const groups = new Map();
  for (const part of document.querySelectorAll("[data-live]")) {
    groups.set(part.dataset.live, [...(groups.get(part.dataset.live) ?? []), part]);
  }
  for (const [url, parts] of groups) {
    let failures = 0, timer, asking = false;
    const look = async () => {
      stop(timer);
      if (asking) return;
      if (!document.hidden) {
        asking = true;
        try {
          await update(parts, url);
          failures = 0;
        } catch {
          failures += 1;
        }
        asking = false;
      }
      plan();
    };
    const plan = () => {
      const running = parts.some((part) => part.querySelector("[data-running]") !== null);
      timer = later(look, pause(running, failures));
    };
    document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
    document.addEventListener("auditweb:look", look);
    plan();
  }
}

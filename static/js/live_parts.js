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

/** Ask once. Answers whether the part still changes; throws when there is no good answer. */
export async function update(part, { fetch = globalThis.fetch, parse = parseHtml, after = refresh } = {}) {
  const answer = await fetch(part.dataset.live, { headers: { Accept: "text/html" }, credentials: "same-origin" });
  if (!answer.ok || answer.redirected) throw new Error(`${answer.status}`);
  const fresh = parse(await answer.text()).getElementById(part.id);
  if (!fresh) throw new Error("not the same part");
  after(fresh);  // times first, so that comparing does not undo them
  morph(part, fresh);
  return part.querySelector("[data-running]") !== null;
}

const parseHtml = (text) => new DOMParser().parseFromString(text, "text/html");

/** Keep all parts of the page fresh. A part can be asked at once by the event `auditweb:look` on document. */
export function start({ later = setTimeout, stop = clearTimeout } = {}) {
  for (const part of document.querySelectorAll("[data-live]")) {
    let failures = 0, timer;
    const look = async () => {
      stop(timer);
      if (!document.hidden) {
        try {
          await update(part);
          failures = 0;
        } catch {
          failures += 1;
        }
      }
      plan();
    };
    const plan = () => { timer = later(look, pause(part.querySelector("[data-running]") !== null, failures)); };
    document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
    document.addEventListener("auditweb:look", look);
    plan();
  }
}

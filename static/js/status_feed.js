/**
 * The feed of a status log, live: asks for rows after the last known `seq` every two seconds while the tab is visible
 * and puts each where its time belongs. `data-feed` is the address (filters included), `data-after` the last `seq` known.
 */
import { refresh } from "./clock.js";

const EVERY_MS = 2000;
const LONGEST_MS = 30_000;

/** Where a row with this place in time goes among `rows` (newest first): the index of the row that it stands before. */
export function placeOf(row, rows) {
  const at = Number(row.dataset.at), seq = Number(row.dataset.seq);
  return rows.findIndex((other) => {
    const otherAt = Number(other.dataset.at);
    return otherAt < at || (otherAt === at && Number(other.dataset.seq) < seq);
  });
}

/** Put rows into the list in order, once each. Returns how many were new. */
export function insert(list, fresh) {
  let added = 0;
  for (const row of fresh) {
    if ([...list.children].some((old) => old.dataset.seq === row.dataset.seq)) continue;
    const rows = [...list.children];
    const index = placeOf(row, rows);
    if (index < 0) list.append(row);
    else list.insertBefore(row, rows[index]);
    added += 1;
  }
  return added;
}

/** The address that answers what came after `seq`, filters kept. */
export function askFor(address, seq) {
  const url = new URL(address, "http://any.invalid");
  url.searchParams.delete("cursor");
  url.searchParams.set("after", seq);
  url.searchParams.set("fragment", "1");
  return url.pathname + url.search;
}

function start(list, { fetch = globalThis.fetch, later = setTimeout } = {}) {
  let after = Number(list.dataset.after), paused = false, failures = 0;
  const button = document.querySelector("[data-feed-pause]");
  const says = document.querySelector("[data-feed-says]");

  async function look() {
    if (!document.hidden && !paused) {
      try {
        const answer = await fetch(askFor(list.dataset.feed, after), { headers: { "X-Background": "1" }, credentials: "same-origin" });
        if (!answer.ok || answer.redirected) throw new Error(`${answer.status}`);
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const part = page.getElementById("feed-news");
        refresh(page);
        const added = insert(list, [...part.children].map((row) => document.adoptNode(row)));
        after = Math.max(after, Number(part.dataset.after));
        for (const counter of page.querySelectorAll("[data-count]")) {
          const shown = document.querySelector(`main [data-count="${counter.dataset.count}"]`);
          if (shown && shown.textContent !== counter.textContent) shown.textContent = counter.textContent;
        }
        if (added) document.querySelector("[data-feed-empty]")?.remove();
        if (added) says.textContent = added === 1 ? "1 new entry" : `${added} new entries`;
        else if (failures) says.textContent = "Connected again";
        failures = 0;
        if (part.dataset.more) return later(look, 0);
      } catch {
        failures += 1;
        says.textContent = "No answer from the server; trying again…";
      }
    }
    return later(look, Math.min(LONGEST_MS, EVERY_MS * 2 ** Math.min(failures, 5)));
  }

  button?.addEventListener("click", () => {
    paused = !paused;
    button.setAttribute("aria-pressed", String(paused));
    button.textContent = paused ? "Go on" : "Pause";
    says.textContent = paused ? "Paused: new entries wait" : "";
  });
  later(look, EVERY_MS);
}

const list = globalThis.document?.querySelector("[data-feed]");
if (list) start(list);

/**
 * How a moment looks: in the viewer's zone or in UTC, with the exact UTC as title.
 *
 * The server writes `<time datetime="…Z" data-time="full|clock|relative">` in UTC; `refresh(root)` rewrites them.
 * When the viewer switches the zone, all times change and `document` gets the event `auditweb:zone`.
 */

const two = (n) => String(n).padStart(2, "0");

/** The zone that times are shown in: "local" or "utc". */
export const zone = () => document.documentElement.dataset.zone ?? "local";

/** Year to second as numbers, in `where` ("local" or "utc"). */
function parts(date, where) {
  return where === "utc"
    ? [date.getUTCFullYear(), date.getUTCMonth() + 1, date.getUTCDate(), date.getUTCHours(), date.getUTCMinutes(), date.getUTCSeconds()]
    : [date.getFullYear(), date.getMonth() + 1, date.getDate(), date.getHours(), date.getMinutes(), date.getSeconds()];
}

/** `2026-03-01 11:56:05` (with ` UTC` behind it in that zone). */
export function full(date, where = "utc") {
  const [y, mo, d, h, mi, s] = parts(date, where);
  return `${y}-${two(mo)}-${two(d)} ${two(h)}:${two(mi)}:${two(s)}${where === "utc" ? " UTC" : ""}`;
}

/** `11:56:05`. */
export function clock(date, where = "utc") {
  const [, , , h, mi, s] = parts(date, where);
  return `${two(h)}:${two(mi)}:${two(s)}`;
}

/** `now`, `40 s ago`, `5 min ago`, `3 h ago`, `2 days ago`, then the date; the future as `in 5 min`. */
export function relative(date, now = Date.now(), where = "utc") {
  const seconds = Math.round((now - date.getTime()) / 1000);
  const far = Math.abs(seconds);
  if (far < 5) return "now";
  const say = (n, unit) => (seconds > 0 ? `${n} ${unit} ago` : `in ${n} ${unit}`);
  if (far < 60) return say(far, "s");
  if (far < 3600) return say(Math.floor(far / 60), "min");
  if (far < 86400) return say(Math.floor(far / 3600), "h");
  const days = Math.floor(far / 86400);
  if (days < 30) return say(days, days === 1 ? "day" : "days");
  return full(date, where).slice(0, 10);
}

/** The exact moment for a tooltip: `2026-03-01 11:56:05.120 UTC`. */
export const exact = (date) => date.toISOString().replace("T", " ").replace("Z", " UTC");

/** Rewrite every `<time data-time>` below `root`. Only what differs is touched, so polling costs no layout. */
export function refresh(root = document, { where = zone(), now = Date.now() } = {}) {
  for (const element of root.querySelectorAll("time[data-time]")) {
    const date = new Date(element.getAttribute("datetime"));
    if (Number.isNaN(date.getTime())) continue;
    const kind = element.dataset.time;
    const text = kind === "relative" ? relative(date, now, where) : kind === "clock" ? clock(date, where) : full(date, where);
    if (element.textContent !== text) element.textContent = text;
    if (!element.title) element.title = exact(date);
  }
}

/** Keep the page's times right: now, after every switch of the zone, and relative ones as time passes. */
export function start({ every = setInterval } = {}) {
  refresh();
  document.addEventListener("auditweb:zone", () => refresh());
  every(() => { if (!document.hidden) refresh(); }, 15_000);  // ms; relative times are no finer than that
}

/** For how long something is pending: `<b data-since="epoch milliseconds">` says it, and again every second. */

/** `850 ms`, `1.8 s`, `40 s`, `1m 40s`, `1h 02m`, `3d 4h`: as the server writes durations, what is left over dropped. */
export function lasting(ms) {
  const two = (n) => String(n).padStart(2, "0");
  if (ms < 1000) return `${Math.max(0, Math.floor(ms))} ms`;
  if (ms < 10_000) return `${Math.floor(ms / 1000)}.${Math.floor(ms / 100) % 10} s`;
  const whole = Math.floor(ms / 1000);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}m ${two(whole % 60)}s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)}h ${two(Math.floor((whole % 3600) / 60))}m`;
  return `${Math.floor(whole / 86_400)}d ${Math.floor((whole % 86_400) / 3600)}h`;
}

/** Say it anew everywhere below `root`, at `now` by the server's clock. */
export function tick(root, now) {
  for (const element of root.querySelectorAll("[data-since]")) {
    // Tenths of a second are for what is over: while it lasts they would only flicker.
    const text = lasting(Math.max(0, Math.floor((now - Number(element.dataset.since)) / 1000) * 1000));
    if (element.textContent !== text) element.textContent = text;
  }
}

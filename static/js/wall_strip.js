/**
 * The moving strip of a card: the last minutes of a session, the present at its right edge.
 *
 * Four rows: who spoke, the tools, all else. A failure is a cross, an interruption crosses all rows. Words say the same
 * beside it, so it is hidden from screen readers.
 */
import { isFailure } from "./row.js";

export const SPAN_MS = 180_000;
const ROWS = { user: 0, assistant: 1, tool: 2 };
const LAST_ROW = 3;
const ROW_HEIGHT = 9;
const BAR = 6;
const POINT = 3;  // pixels of an event without a duration, and the least of one with
const OPEN = "?";  // the state of a call without an outcome: as sessions_app/outline.py
export const HEIGHT = (LAST_ROW + 1) * ROW_HEIGHT;

/** `recent` of a card as [{at, ms, lane, state, failed}], `at` in milliseconds of the server's clock. */
export function eventsOf({ recent, clock_ms: clock }) {
  let at = Date.parse(recent.start) + clock;
  const { at_ms: steps, lane, state, duration_ms: ms } = recent.columns;
  return steps.map((step, i) => {
    at += step;
    const word = recent.states[state[i]] ?? "";
    return { at, ms: ms[i], lane: recent.lanes[lane[i]], state: word, failed: isFailure(recent.lanes[lane[i]], word) };
  });
}

/** Where `events` stand at `now` on a strip of `width` pixels: [{x, width, row, lane, failed}]; row -1 crosses all. */
export function layout(events, now, width) {
  const scale = width / SPAN_MS;
  const from = now - SPAN_MS;
  const found = [];
  for (const { at, ms, lane, state, failed } of events) {
    const end = lane === "tool" && state === OPEN ? now : at + (ms ?? 0);
    if (end < from || at > now + SPAN_MS) continue;
    const x = Math.min((at - from) * scale, width - POINT);
    const least = Math.max(x, 0);
    const right = Math.min(Math.max((end - from) * scale, least + POINT), width);
    const row = lane === "interruption" ? -1 : ROWS[lane] ?? LAST_ROW;
    found.push({ x: least, width: right - least, row, lane, failed });
  }
  return found;
}

/** The colours of the page's theme, by lane; ask again when the theme changes. */
export function palette(root = document.body) {
  const probe = document.createElement("i");
  root.append(probe);
  const colors = {};
  for (const name of ["line", "c-user", "c-assistant", "c-tool", "c-vision", "c-interruption", "c-status", "c-failure", "c-other"]) {
    probe.style.color = `var(--${name})`;
    colors[name.replace("c-", "")] = getComputedStyle(probe).color;
  }
  probe.remove();
  return colors;
}

/** Draw `events` as of `now` into `canvas`. */
export function paint(canvas, events, now, colors) {
  const ratio = globalThis.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  if (!width) return;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(HEIGHT * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(HEIGHT * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, HEIGHT);
  context.fillStyle = colors.line;
  for (let minute = 1; minute < SPAN_MS / 60_000; minute++) context.fillRect((width * minute * 60_000) / SPAN_MS, 0, 1, HEIGHT);
  const marks = layout(events, now, width);
  for (const { x, width: length, row, lane, failed } of marks) {
    context.fillStyle = failed ? colors.failure : colors[lane] ?? colors.other;
    if (row < 0) context.fillRect(x, 0, 1.5, HEIGHT);
    else context.fillRect(x, row * ROW_HEIGHT + (ROW_HEIGHT - BAR) / 2, length, BAR);
  }
  context.strokeStyle = colors.failure;
  context.lineWidth = 2;
  context.beginPath();
  for (const { x, row, failed } of marks) {
    if (!failed || row < 0) continue;
    const y = row * ROW_HEIGHT + ROW_HEIGHT / 2, left = Math.max(x, 4);
    context.moveTo(left - 4, y - 4);
    context.lineTo(left + 4, y + 4);
    context.moveTo(left - 4, y + 4);
    context.lineTo(left + 4, y - 4);
  }
  context.stroke();
}

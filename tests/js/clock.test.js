import assert from "node:assert/strict";
import { test } from "node:test";

process.env.TZ = "America/Toronto";
const { clock, exact, full, relative } = await import("../../static/js/clock.js");

const date = new Date("2026-03-01T16:56:05.120Z");

test("the same moment in UTC and in the viewer's zone", () => {
  assert.equal(full(date, "utc"), "2026-03-01 16:56:05 UTC");
  assert.equal(full(date, "local"), "2026-03-01 11:56:05");
  assert.equal(clock(date, "local"), "11:56:05");
  assert.equal(exact(date), "2026-03-01 16:56:05.120 UTC");
});

test("relative times use the largest fitting unit and end as a date", () => {
  const after = (seconds) => relative(date, date.getTime() + seconds * 1000);
  assert.equal(after(2), "now");
  assert.equal(after(40), "40 s ago");
  assert.equal(after(61), "1 min ago");
  assert.equal(after(2 * 3600), "2 h ago");
  assert.equal(after(86400), "1 day ago");
  assert.equal(after(90 * 86400), "2026-03-01");
  assert.equal(after(-600), "in 10 min");
});

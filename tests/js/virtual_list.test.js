import assert from "node:assert/strict";
import { test } from "node:test";
import { Scroll } from "../../static/js/virtual_list.js";

test("up to the tallest element the bar is exact", () => {
  const scroll = new Scroll();
  scroll.measure(28 * 100_000, 600);
  assert.equal(scroll.height, 2_800_000);
  assert.equal(scroll.moved(12_345), 12_345);
  assert.equal(scroll.goTo(28 * 99_999), 2_800_000 - 600);
});

test("beyond it both ends are reached, small steps are exact and jumps land in proportion", () => {
  const scroll = new Scroll();
  const total = 28 * 3_000_000;
  scroll.measure(total, 600);
  assert.equal(scroll.height, 15_000_000);
  assert.equal(scroll.moved(100), 100);
  assert.equal(scroll.moved(160), 160);
  assert.equal(scroll.moved(15_000_000 - 600), total - 600);
  assert.equal(scroll.moved(0), 0);
  const half = scroll.moved(7_499_700);
  assert.ok(Math.abs(half - (total - 600) / 2) < 10, `${half}`);
});

test("going to a row and settling the bar shows the same pixel", () => {
  const scroll = new Scroll();
  scroll.measure(28 * 3_000_000, 600);
  const bar = scroll.goTo(28 * 1_234_567);
  assert.equal(scroll.top, 28 * 1_234_567);
  assert.equal(scroll.moved(bar + 28), 28 * 1_234_567 + 28);
});

test("a list shorter than the window stays at its top", () => {
  const scroll = new Scroll();
  scroll.measure(28 * 3, 28 * 3);
  assert.equal(scroll.goTo(5000), 0);
});

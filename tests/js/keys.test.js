import assert from "node:assert/strict";
import { test } from "node:test";

import { find, mention, register, registered, takesText } from "../../static/js/keys.js";

const press = (key, more = {}) => ({ key, target: { tagName: "BODY" }, ...more });

test("a registered key is found until it is taken back", () => {
  const ran = [];
  const back = register("j", "next event", () => ran.push("j"));
  find(press("j")).run();
  assert.deepEqual(ran, ["j"]);
  assert.deepEqual(registered(), [{ key: "j", says: "next event" }]);
  back();
  assert.equal(find(press("j")), undefined);
});

test("the last registration of a key wins, and only it takes itself back", () => {
  const first = register("k", "one", () => {});
  register("k", "two", () => {});
  first();
  assert.equal(find(press("k")).says, "two");
});

test("nothing runs while somebody types, with a modifier, or under a dialog", () => {
  register("x", "x", () => {});
  assert.ok(find(press("x")));
  assert.equal(find(press("x", { target: { tagName: "INPUT", type: "search" } })), undefined);
  assert.equal(find(press("x", { target: { tagName: "TEXTAREA" } })), undefined);
  assert.equal(find(press("x", { ctrlKey: true })), undefined);
  assert.equal(find(press("x"), { dialogOpen: true }), undefined);
  assert.equal(takesText({ tagName: "INPUT", type: "checkbox" }), false);
});

test("a key of one part of the page is listed and left to that part", () => {
  mention("Esc", "in Find: clear it");
  mention("Esc", "in the menu: close it");
  assert.deepEqual(registered().filter(({ key }) => key === "Esc").map(({ says }) => says), ["in Find: clear it", "in the menu: close it"]);
  assert.equal(find(press("Esc")), undefined);
});

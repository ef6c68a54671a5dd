import assert from "node:assert/strict";
import { test } from "node:test";
import { Details } from "../../static/js/details.js";
import { look } from "../../static/js/session_list.js";

const settled = () => new Promise((done) => setImmediate(done));

function stage() {
  const pane = {
    dataset: {}, attributes: {}, children: [],
    setAttribute(name, value) { this.attributes[name] = value; }, removeAttribute(name) { delete this.attributes[name]; },
    replaceChildren(...children) { this.children = children; }, querySelectorAll: () => [],
  };
  const asked = [];
  const timers = [];
  const fetch = (url) => new Promise((answer) => asked.push({ url, give: (text) => answer({ ok: true, text: async () => text }) }));
  const details = new Details(pane, (seq) => `/e/${seq}`, {
    fetch, parse: (text) => [text], tidy() {}, later: (run) => timers.push(run), cancel: (id) => { timers[id - 1] = () => {}; },
  });
  return { pane, asked, details, run: () => timers.splice(0).forEach((one) => one()) };
}

test("while a key is held only where it stops is fetched", async () => {
  const { pane, asked, details, run } = stage();
  details.show(1);
  details.show(2);
  run();
  asked.at(-1).give("two");
  await settled();
  assert.deepEqual(asked.map((one) => one.url), ["/e/2"]);
  assert.deepEqual(pane.children, ["two"]);
  assert.equal(pane.dataset.seq, "2");
});

test("an answer that comes too late is kept, not shown", async () => {
  const { pane, asked, details, run } = stage();
  details.show(1);
  run();
  details.show(2);
  run();
  asked[1].give("two");
  asked[0].give("one");
  await settled();
  assert.deepEqual(pane.children, ["two"]);
});

test("the list asks with the tag of what it has, and 304 changes nothing", async () => {
  const state = {};
  const headers = [];
  const answers = [
    { status: 200, ok: true, headers: new Map([["ETag", '"a"']]), text: async () => "<rows>" },
    { status: 304, ok: false },
    { status: 302, ok: true, redirected: true },
  ];
  const fetch = async (url, options) => { headers.push(options.headers["If-None-Match"]); return answers.shift(); };
  assert.equal(await look("/", state, { fetch }), "<rows>");
  assert.equal(await look("/", state, { fetch }), null);
  await assert.rejects(look("/", state, { fetch }));
  assert.deepEqual(headers, [undefined, '"a"', '"a"']);
});

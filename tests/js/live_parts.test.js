import assert from "node:assert/strict";
import { test } from "node:test";

import { pause } from "../../static/js/live_parts.js";

test("a part that changes is asked often, a quiet one seldom, a silent server less and less", () => {
  assert.equal(pause(true, 0), 1000);
  assert.equal(pause(false, 0), 10_000);
  assert.equal(pause(true, 3), 8000);
  assert.equal(pause(true, 50), 30_000);
});

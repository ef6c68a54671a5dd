/**
 * One timeline row: what it says (`view`) and how it looks (`createRow`, `fillRow`).
 *
 * The only module that draws a row from JSON: for the first screen, for a jump and for the live socket.
 * templates/sessions/_row.html draws the same for the page without scripts; tests hold the two against each other,
 * so a change here is a change there and in sessions_app/templatetags/timeline.py.
 */

export const LABELS = {
  user: "USER", assistant: "ASSISTANT", tool: "TOOL", vision: "VISION", status: "STATUS", decision: "DECISION",
  memory: "MEMORY", run: "RUN", lifecycle: "SESSION", error: "✗ ERROR",
};

/** What an event of a tool call of several is, by the producers' words: as sessions_app/chains.py has them. */
export const STAGES = {
  tool_call_attempt: "attempt", tool_call_start: "attempt", "event:tool_call": "attempt",
  tool_policy_decision: "policy", sandbox_decision: "sandbox", permission_request: "permission",
  hook_mutation: "hook", tool_loop_warning: "loop", tool_loop_block: "loop", tool_call_complete: "result",
  tool_call_failure: "result", tool_call_end: "result", "event:tool_result": "result", "event:tool_error": "result",
};
const STAGE_LABELS = {
  policy: "POLICY", sandbox: "SANDBOX", permission: "PERMISSION", hook: "HOOK", loop: "LOOP CHECK",
};
const RUN_LABELS = {
  agent_run: "RUN", callback: "CALLBACK", "event:callback": "CALLBACK", skill: "SKILL", skill_used: "SKILL",
  skill_authored: "SKILL", skill_feedback: "SKILL", "event:subagent_call": "SUB-AGENT",
  "event:subagent_result": "SUB-AGENT", "event:subagent_error": "SUB-AGENT", "event:subagent_batch_started": "BATCH",
  "event:subagent_batch_finished": "BATCH", agent_switch: "HAND-OVER", task: "TASK",
};

const LANES = new Set([...Object.keys(LABELS), "interruption", "other"]);
const OK = new Set(["ok", "success", "completed", "done", "allow", "allowed", "granted", "pass"]);
const FAILED = new Set(["failed", "error", "denied", "blocked"]);  // as sessions_app/projection.py counts them
const REFUSED = new Set(["deny", "block"]);  // words of decisions that say no, beside those of FAILED
const HEALTHY = new Set(["", "ok", "none"]);  // of a loop check that warns of nothing: one is written before every call
const CALM = new Set(["", "info", "debug", "trace", "notice"]);  // severities that a row need not mention
const PLAIN = new Set(["user", "assistant", "lifecycle"]);  // lanes where "delivered" goes without saying
const MAX_DEPTH = 5;  // RoomKit stops a chain of answers here (max_chain_depth)
const PENDING = new Set(["pending", "running", "started", "waiting"]);
export const ICONS = { ok: "+", failed: "x", pending: "?", info: "~", completed: "*" };  // RoomKit's own, in its summaries

const ROW_CHARACTERS = 400;  // a row is one clipped line; more text only costs layout
const GAP_MS = 1000;  // a reply faster than a second is a conversation, not a wait

/** "ok", "failed", "pending" or "other": the four ways a recorded status is drawn. */
export function stateOf(status) {
  const word = String(status ?? "").toLowerCase();
  if (OK.has(word)) return "ok";
  if (FAILED.has(word) || REFUSED.has(word)) return "failed";
  return PENDING.has(word) ? "pending" : "other";
}

/** True for what `e` jumps to: a row of the error lane, or one whose recorded status says that it failed. */
export function isFailure(lane, status) {
  return lane === "error" || FAILED.has(String(status ?? "").toLowerCase());
}

/** Which stage of a tool call of several events a row is; "" for all others. */
export function stageOf(row) {
  if (row.lane !== "tool" && row.lane !== "decision") return "";
  return Object.hasOwn(STAGES, row.kind) ? STAGES[row.kind] : "";
}

/** Text with its invisible characters made visible: control pictures, and the code of a direction override. */
export function visible(text) {
  return text
    .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
    .replace(/\u007f/g, "\u2421")
    .replace(/[\u0080-\u009f]/g, "\ufffd")
    .replace(/[\u202a-\u202e\u2066-\u2069]/g, (c) => `⟨U+${c.charCodeAt(0).toString(16).toUpperCase()}⟩`);
}

/** `ms` as a row prints it: whole milliseconds, "<1 ms" below one; "" when unknown. */
export function milliseconds(ms) {
  if (ms === null || ms === undefined) return "";
  if (ms > 0 && ms < 1) return "<1 ms";
  return `${Math.floor(ms + 0.5)} ms`;
}

/** A reply gap as "+2.0 s", "+3m 05s" or "+1h 02m"; "" below one second or when unknown. */
export function gapText(ms) {
  if (!(ms >= GAP_MS)) return "";
  const tenths = Math.floor(ms / 100 + 0.5);
  if (tenths < 600) return `+${Math.floor(tenths / 10)}.${tenths % 10} s`;
  const two = (n) => String(n).padStart(2, "0");
  const seconds = Math.floor(tenths / 10), minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `+${minutes}m ${two(seconds % 60)}s`;
  return `+${Math.floor(minutes / 60)}h ${two(minutes % 60)}m`;
}

/** How warm a gap is drawn: 0 (none), 1, 2 (from 3 s) or 3 (from 8 s). */
export function gapWarmth(ms) {
  if (!(ms >= GAP_MS)) return 0;
  if (ms >= 8000) return 3;
  return ms >= 3000 ? 2 : 1;
}

/** The exact instant for a tooltip: "2026-03-20 11:56:02.118204 UTC". */
export function exactTime(at) {
  return at ? at.replace("T", " ").replace(/(Z|\+00:00)$/, "") + " UTC" : "No readable time";
}

/** The clock of an ISO instant in UTC, "11:56:02"; "–" for null. */
export function utcClock(at) {
  return at ? at.slice(11, 19) : "–";
}

function short(text) {
  const points = [...text.slice(0, 2 * ROW_CHARACTERS + 1)];
  return points.length > ROW_CHARACTERS ? points.slice(0, ROW_CHARACTERS).join("") + "…" : text;
}

/**
 * What a row says, as plain values.
 *
 * `row`: a timeline row as the API gives it. `gap`: milliseconds from the user's words to this reply, or null.
 * `outcome`: for an attempt what its call came to, {status, ms} ("?" without an outcome), or null.
 * `clock`: ISO instant → the time of day to show. Returns {seq, classes, time, exact, gap, warmth, label, name, state,
 * stateWord, duration, text, agent, shown, severity, depth, cut, flags}; what does not apply is "".
 */
export function view(row, { gap = null, outcome = null, clock = utcClock } = {}) {
  const lane = LANES.has(row.lane) ? row.lane : "other";
  const stage = stageOf(row);
  const inCall = Boolean(stage) && row.call !== null && row.call !== undefined;
  const part = inCall && row.call !== row.seq;
  const told = stage === "attempt" && outcome ? outcome : { status: row.status, ms: row.duration_ms };
  const word = PLAIN.has(lane) && told.status === "delivered" ? "" : told.status;
  const isOpen = stage === "attempt" && word === "?";
  const healthy = row.kind === "tool_loop_warning" && HEALTHY.has(String(word ?? "").toLowerCase());
  let state = isOpen ? "open" : word ? stateOf(word) : "";
  if (stage === "loop" && state === "other" && !healthy) state = "pending";
  const status = isOpen ? "no outcome" : word ? visible(String(word)) : "";
  const shown = row.visibility && row.visibility !== "all" ? row.visibility : "";
  const failed = isFailure(lane, row.status) || (lane === "decision" && state === "failed");
  const named = lane === "tool" || (lane !== "status" && row.tool) ? visible(row.tool || "(no name)") : "";
  const warmth = lane === "assistant" ? gapWarmth(gap) : 0;
  const flags = row.flags ?? [];
  const depth = row.depth ?? 0, severity = row.severity ?? "";
  const measured = told.ms !== null && told.ms !== undefined;
  const edge = lane === "tool" && row.at ? (stage === "attempt" ? "began " : "ended ") : "";
  const classes = [
    "row", `lane-${lane}`, failed && "failed", inCall && "in-call", part && "call-part", healthy && "healthy",
    shown && "hidden-from-some", depth && `depth-${Math.min(depth, MAX_DEPTH)}`,
  ];
  return {
    seq: row.seq,
    classes: classes.filter(Boolean).join(" "),
    at: row.at ?? "",
    time: row.at ? clock(row.at) : "–",
    exact: edge + exactTime(row.at),
    guessed: row.at && row.ts_quality === "assumed",
    gap: warmth ? gapText(gap) : "",
    warmth,
    label: label(lane, row.kind, stage, part),
    name: named,
    state,
    stateWord: lane === "status" ? `${Object.hasOwn(ICONS, word) ? ICONS[word] : "·"} ${status}` : status.toUpperCase(),
    // Between the lines of a call whole milliseconds are known: none of them means less than one.
    duration: stage === "attempt" && measured ? milliseconds(told.ms || 0.5) : told.ms ? milliseconds(told.ms) : "",
    text: short(visible(stage === "hook" && row.text ? `altered ${row.text}` : row.text ?? "")),
    agent: visible(row.agent ?? ""),
    shown: visible(shown),
    severity: CALM.has(severity.toLowerCase()) || failed || stage ? "" : visible(severity),
    depth: depth >= MAX_DEPTH - 1 ? `depth ${depth} of ${MAX_DEPTH}` : "",
    cut: row.cut ? `cut at ${row.cut}` : "",
    flags: flags.filter((flag) => flag !== "more").length,
  };
}

function label(lane, kind, stage, part) {
  if (lane === "interruption") return !kind || kind === "barge_in" ? "⌁ BARGE-IN" : `⌁ ${visible(kind)}`;
  if (lane === "run") {
    return Object.hasOwn(RUN_LABELS, kind) ? RUN_LABELS[kind] : visible(kind.replace(/^(event|trace):/, "") || "RUN");
  }
  if (stage === "result" && part) return "→ RESULT";
  return STAGE_LABELS[stage] ?? LABELS[lane] ?? visible(kind || "other");
}

const element = (document, name, className) => {
  const made = document.createElement(name);
  made.className = className;
  return made;
};

/** An empty row: made once per visible line and filled again and again while the list scrolls. */
export function createRow(document) {
  const row = element(document, "article", "row");
  const time = element(document, "a", "row-time");
  time.append(document.createElement("time"));
  row.append(time, ...["row-gap", "row-label", "row-text", "row-agent", "row-badges"].map(
    (name) => element(document, "span", name)));
  return row;
}

/** Draw `row` into an element made by createRow; `options` as for view, plus `href(seq)` for the permalink. */
export function fillRow(target, row, options = {}) {
  const said = view(row, options);
  const document = target.ownerDocument;
  const [link, gap, label, text, agent, badges] = target.children;
  target.className = said.classes;
  target.id = `e${said.seq}`;
  target.dataset.seq = String(said.seq);
  link.setAttribute("href", options.href ? options.href(said.seq) : `?at=${said.seq}#e${said.seq}`);
  link.setAttribute("title", said.exact);
  const time = link.children[0];
  time.className = said.guessed ? "assumed" : "";
  time.setAttribute("datetime", said.at);
  time.textContent = said.time;
  gap.className = said.warmth ? `row-gap warm-${said.warmth}` : "row-gap";
  gap.textContent = said.gap;
  label.textContent = said.label;
  agent.textContent = said.agent;
  const parts = [];
  const add = (name, className, content) => {
    const part = element(document, name, className);
    part.textContent = content;
    parts.push(part);
  };
  if (said.name) add("code", "row-tool", said.name);
  if (said.stateWord) add("b", `state state-${said.state}`, said.stateWord);
  if (said.duration) add("span", "row-ms", said.duration);
  add("bdi", "row-words", said.text);
  text.replaceChildren(...parts);
  parts.length = 0;
  if (said.shown) add("span", "row-badge", said.shown);
  if (said.severity) add("span", "row-badge warn", said.severity);
  if (said.depth) add("span", "row-badge warn", said.depth);
  if (said.cut) add("span", "row-badge", said.cut);
  if (said.flags) add("span", "row-badge warn", `⚑ ${said.flags}`);
  badges.replaceChildren(...parts);
  return target;
}

/** A row that is still on its way: the same boxes, so that nothing moves when it arrives. */
export function fillPlaceholder(target, seq) {
  const [link, gap, label, text, agent, badges] = target.children;
  target.className = "row waiting";
  target.id = `e${seq}`;
  target.dataset.seq = String(seq);
  link.removeAttribute("href");
  link.removeAttribute("title");
  link.children[0].textContent = "";
  gap.className = "row-gap";
  gap.textContent = label.textContent = agent.textContent = "";
  text.replaceChildren();
  badges.replaceChildren();
  return target;
}

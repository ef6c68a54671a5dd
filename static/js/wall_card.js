/**
 * One running session on the Live wall: what its card says, and how it is drawn.
 *
 * templates/sessions/_wall_card.html draws the same for the first paint and for pages without scripts.
 */
import { durationText } from "./live_state.js";
import { visible } from "./row.js";

const number = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, "\u202f");
const counted = (n, word) => `${number(n)} ${word}${n === 1 ? "" : "s"}`;

/** "live", "quiet" (heard of, but no line), "stale" (not heard of), "ended". */
export function phaseOf(card) {
  if (!card.live) return "ended";
  return card.stale ? "stale" : card.quiet ? "quiet" : "live";
}

/** What `card`, a session as the socket tells it, says at `now` (milliseconds of the server's clock). */
export function says(card, now) {
  const phase = phaseOf(card);
  const since = (time) => durationText((now - Date.parse(time)) / 1000);
  const began = Date.parse(card.started_at) + card.clock_ms;
  // What nobody hears of may be over for long.
  const until = phase === "ended" && card.ended_at ? Date.parse(card.ended_at)
    : phase === "stale" && card.heard_at ? Date.parse(card.heard_at) : now;
  const n = card.counters;
  return {
    phase,
    silence: phase === "quiet" && card.last_line_at ? `no line for ${since(card.last_line_at)}`
      : phase === "stale" && card.heard_at ? `nothing heard for ${since(card.heard_at)}` : "",
    failing: card.failing && phase !== "ended" ? "✗ failing" : "",
    elapsed: durationText((until - began) / 1000),
    title: card.title,
    agents: card.agents.join(", "),
    role: card.last_role ? `${card.last_role} ` : "",
    text: visible(card.last_text),
    counts: [
      `${number(n.user_turns)} user ${number(n.assistant_turns)} assistant`,
      counted(n.tool_calls, "tool"),
      n.tool_failures ? `✗ ${number(n.tool_failures)} failed` : "",
      n.interruptions ? `⌁ ${counted(n.interruptions, "interruption")}` : "",
      n.errors ? `✗ ${counted(n.errors, "error")}` : "",
      counted(n.event_count, "event"),
    ],
  };
}

const COUNT_CLASSES = ["", "", "failing", "", "failing", "soft"];

/** An empty card: the same elements as the template has. */
export function createCard(document) {
  const make = (name, className, ...children) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    made.append(...children);
    return made;
  };
  const strip = make("canvas", "wall-strip");
  strip.setAttribute("aria-hidden", "true");
  return make("li", "wall-card",
    make("p", "wall-state", make("span", "badge"), make("span", "soft small"), make("b", "failing"), make("span", "wall-elapsed")),
    make("h3", "clip", make("a")),
    make("p", "wall-agents soft small clip"),
    make("p", "wall-said", make("b"), make("bdi")),
    strip,
    make("p", "wall-counts small", ...COUNT_CLASSES.map((name) => make("span", name))));
}

const write = (element, text) => { if (element.textContent !== text) element.textContent = text; };

/** Make `element` (of createCard, or of the template) say what `says` found; touches only what differs. */
export function fillCard(element, card, said, href) {
  const [state, head, agents, words, , counts] = element.children;
  const [badge, , failing] = state.children;
  element.className = said.failing ? "wall-card failing" : "wall-card";
  element.dataset.id = card.id;
  element.dataset.phase = said.phase;
  badge.className = `badge ${said.phase}`;
  write(badge, said.phase);
  write(failing, said.failing);
  write(head.children[0], said.title);
  if (head.children[0].getAttribute("href") !== href) head.children[0].setAttribute("href", href);
  write(agents, said.agents);
  write(words.children[0], said.role);
  write(words.children[1], said.text);
  said.counts.forEach((text, i) => write(counts.children[i], text));
  tick(element, said);
}

/** Only what changes as time passes. */
export function tick(element, said) {
  const [, silence, , elapsed] = element.children[0].children;
  write(silence, said.silence);
  write(elapsed, said.elapsed);
}

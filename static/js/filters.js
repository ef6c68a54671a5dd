/**
 * What is shown of a session: the filter chips, and their place in the address.
 *
 * Lane, agent, failure and passed checks are answered by the outline at once; tool, severity and words need the server,
 * which answers with seqs.
 */

export const LISTS = ["lane", "agent", "tool", "severity"];
export const WORDS = { status: "failed", checks: "telling" };  // on or off: the word that says so in the address
export const ASKED = ["tool", "severity"];  // of the server

/**
 * The filter in an address: {lane: Set, agent: Set, tool: Set, severity: Set, status: "" | "failed",
 * checks: "" | "telling", q: string}.
 */
export function fromAddress(search) {
  const params = new URLSearchParams(search);
  const filter = { q: params.get("q") ?? "" };
  for (const [name, word] of Object.entries(WORDS)) filter[name] = params.get(name) === word ? word : "";
  for (const name of LISTS) filter[name] = new Set(params.getAll(name).filter(Boolean));
  return filter;
}

/** `search` with the filter and the selected event put into it; other parameters (team) stay. "" or "?…". */
export function toAddress(search, filter, at) {
  const params = new URLSearchParams(search);
  for (const name of [...LISTS, ...Object.keys(WORDS), "q", "at", "cursor"]) params.delete(name);
  for (const name of LISTS) for (const value of [...filter[name]].sort()) params.append(name, value);
  for (const name of Object.keys(WORDS)) if (filter[name]) params.set(name, filter[name]);
  if (filter.q) params.set("q", filter.q);
  if (at) params.set("at", String(at));
  const text = params.toString();
  return text ? `?${text}` : "";
}

export function isEmpty(filter) {
  return Object.keys(WORDS).every((name) => !filter[name]) && LISTS.every((name) => !filter[name].size);
}

/**
 * Which rows pass: Uint8Array over indexes, or null when all do.
 *
 * `asked`: {tool, severity}, each the set of seqs that the server named for the chosen values; missing while none are
 * chosen or known. `before`: what this returned when only the rows up to index `from` were as they are now.
 */
export function mask(outline, filter, asked = {}, { from = 0, before = null } = {}) {
  if (isEmpty(filter)) return null;
  const passing = new Uint8Array(outline.length);
  if (before) passing.set(before.subarray(0, from));
  const lanes = outline.lanes.map((lane) => !filter.lane.size || filter.lane.has(lane));
  const agents = outline.agents.map((agent) => filter.agent.has(agent));
  for (let i = before ? from : 0; i < outline.length; i++) {
    if (!lanes[outline.lane[i]]) continue;
    if (filter.agent.size && !agents[outline.agent[i]]) continue;
    if (filter.status && !outline.failed(i)) continue;
    if (filter.checks && outline.passed(i)) continue;
    if (ASKED.some((name) => filter[name].size && !asked[name]?.has(outline.seq[i]))) continue;
    passing[i] = 1;
  }
  return passing;
}

/** The indexes that pass, ascending; `null` (all) stays null. `before`: those of the mask whose rows up to `from` stay. */
export function positions(passing, { from = 0, before = null } = {}) {
  if (!passing) return null;
  const kept = before ? before.subarray(0, placeIn(before, from)) : [];
  const found = [];
  for (let i = before ? from : 0; i < passing.length; i++) if (passing[i]) found.push(i);
  const all = new Uint32Array(kept.length + found.length);
  all.set(kept);
  all.set(found, kept.length);
  return all;
}

/** How many of the ascending `numbers` are below `limit`. */
export function placeIn(numbers, limit) {
  let low = 0, high = numbers.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (numbers[middle] < limit) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Asking the server which events of a session hold a word or belong to a tool. */

const PAGE = 1000;  // rows a request
const MOST = 50_000;  // matches kept; a word in more rows than this finds nothing by being found

/**
 * The seqs that match `query` ({q, tool}), ascending, page after page.
 *
 * Resolves to {seqs, more}: `more` is true when there were more than MOST. `signal` aborts it.
 */
export async function matching(url, query, { signal, fetch = globalThis.fetch, page = PAGE, most = MOST } = {}) {
  const seqs = [];
  let after = 0;
  for (;;) {
    const params = new URLSearchParams({ order: "arrival", after_index: String(after), limit: String(page) });
    for (const [name, value] of Object.entries(query)) {
      for (const one of Array.isArray(value) ? value : [value]) if (one) params.append(name, one);
    }
    const answer = await fetch(`${url}?${params}`, {
      signal, headers: { Accept: "application/json" }, credentials: "same-origin",
    });
    if (!answer.ok) throw new Error(`answer ${answer.status}`);
    const { entries, more } = await answer.json();
    for (const { seq } of entries) seqs.push(seq);
    if (seqs.length >= most) return { seqs: seqs.slice(0, most), more: true };
    const last = entries.at(-1)?.seq ?? after;
    if (!more || last <= after) return { seqs, more: false };
    after = last;
  }
}

/** From the match at or after (step 1), or at or before (step -1) `index`, the next one; goes round at the ends. */
export function step(matches, index, direction) {
  if (!matches.length) return -1;
  if (direction > 0) return matches.find((one) => one > index) ?? matches[0];
  return matches.findLast((one) => one < index) ?? matches.at(-1);
}

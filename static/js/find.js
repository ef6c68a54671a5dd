/** Asking the server which events of a session hold a word or belong to a tool. */

/**
 * The seqs that match `query` ({q, tool}), ascending, of the whole session.
 *
 * Resolves to {seqs, lastSeq}: `lastSeq` is how far the session went when they were looked for. `signal` aborts it.
 */
export async function matching(url, query, { signal, fetch = globalThis.fetch } = {}) {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of Array.isArray(value) ? value : [value]) if (one) params.append(name, one);
  }
  const answer = await fetch(`${url}?${params}`, {
    signal, headers: { Accept: "application/json" }, credentials: "same-origin",
  });
  if (!answer.ok) throw new Error(`answer ${answer.status}`);
  const { seqs, last_seq: lastSeq } = await answer.json();
  let seq = 0;
  return { seqs: seqs.map((further) => (seq += further)), lastSeq };
}

/** From the match at or after (step 1), or at or before (step -1) `index`, the next one; goes round at the ends. */
export function step(matches, index, direction) {
  if (!matches.length) return -1;
  if (direction > 0) return matches.find((one) => one > index) ?? matches[0];
  return matches.findLast((one) => one < index) ?? matches.at(-1);
}

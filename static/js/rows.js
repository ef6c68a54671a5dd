/**
 * The rows of one session, fetched as they are looked at: batches by `seqs=`, the newest wish first, what nobody looks at
 * any more is aborted, and a bounded number stays at hand.
 */

/** Sorted or unsorted seqs → "1,2,5-9", the set notation of the timeline API. */
export function ranges(seqs) {
  const sorted = [...seqs].sort((a, b) => a - b);
  const parts = [];
  for (let i = 0; i < sorted.length;) {
    let end = i;
    while (sorted[end + 1] === sorted[end] + 1) end++;
    parts.push(end > i ? `${sorted[i]}-${sorted[end]}` : `${sorted[i]}`);
    i = end + 1;
  }
  return parts.join(",");
}

const BATCH = 100;  // rows a request; a screen has about 40
const KEPT = 5000;  // rows at hand, about 5 MB

export class Rows {
  /** `url`: the timeline address. `arrived(rows)` is called for every answer, `failed(error)` when one does not come. */
  constructor(url, { arrived, failed = () => {}, fetch = globalThis.fetch, later = setTimeout, kept = KEPT } = {}) {
    Object.assign(this, { url, arrived, failed, kept });
    // The browser's own functions refuse to be called as methods of something else.
    this.fetch = (...args) => fetch(...args);
    this.later = (...args) => later(...args);
    this.cache = new Map();  // in order of use, the oldest first
    this.flying = new Map();  // seq → the request that fetches it
    this.attempts = 0;
  }

  get(seq) {
    const row = this.cache.get(seq);
    if (row) {
      this.cache.delete(seq);
      this.cache.set(seq, row);
    }
    return row;
  }

  put(rows) {
    for (const row of rows) {
      this.cache.delete(row.seq);
      this.cache.set(row.seq, row);
    }
    for (const seq of this.cache.keys()) {
      if (this.cache.size <= this.kept) break;
      this.cache.delete(seq);
    }
  }

  clear() {
    this.cache.clear();
    this.want([]);
  }

  /** These rows are looked at now: fetch those that are missing, abort requests that hold none of them. */
  want(seqs) {
    this.wanted = new Set(seqs);
    for (const request of new Set(this.flying.values())) {
      if (!request.seqs.some((seq) => this.wanted.has(seq))) {
        request.abort.abort();
        this.#forget(request);
      }
    }
    const missing = seqs.filter((seq) => !this.cache.has(seq) && !this.flying.has(seq));
    for (let i = 0; i < missing.length; i += BATCH) this.#load(missing.slice(i, i + BATCH));
  }

  #forget(request) {
    for (const seq of request.seqs) if (this.flying.get(seq) === request) this.flying.delete(seq);
  }

  async #load(seqs) {
    const request = { seqs, abort: new AbortController() };
    for (const seq of seqs) this.flying.set(seq, request);
    try {
      const answer = await this.fetch(`${this.url}?seqs=${ranges(seqs)}`, {
        signal: request.abort.signal, headers: { Accept: "application/json" }, credentials: "same-origin",
      });
      if (!answer.ok) throw Object.assign(new Error(`answer ${answer.status}`), { status: answer.status });
      const { entries } = await answer.json();
      this.#forget(request);
      this.attempts = 0;
      this.put(entries);
      this.arrived(entries);
    } catch (error) {
      this.#forget(request);
      if (error.name === "AbortError") return;
      this.failed(error);
      if (error.status && error.status < 500) return;  // refused: asking again would not help
      const pause = Math.min(8000, 500 * 2 ** this.attempts++) * (0.5 + Math.random() / 2);
      this.later(() => this.want([...this.wanted]), pause);
    }
  }
}

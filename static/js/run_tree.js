/**
 * The tree of agent runs as a treegrid: arrows move, fold and unfold.
 *
 * The page holds a plain table that says the level of each row (`data-depth`); this gives the rows their roles, folds
 * what lies below a row, and keeps one row in the order of Tab.
 */

/** For each depth in order of a tree: how many rows directly behind it lie below it. */
export function below(depths) {
  const found = new Array(depths.length).fill(0);
  const open = [];  // places of the rows that the current one lies below
  depths.forEach((depth, place) => {
    while (open.length && depths[open.at(-1)] >= depth) open.pop();
    for (const one of open) found[one]++;
    open.push(place);
  });
  return found;
}

/** Which rows are seen: those of which no row above them is folded. `folded`: the set of places. */
export function seen(counts, folded) {
  const visible = [];
  for (let place = 0; place < counts.length;) {
    visible.push(place);
    place += folded.has(place) ? counts[place] + 1 : 1;
  }
  return visible;
}

class Tree {
  constructor(table) {
    this.rows = [...table.tBodies[0].rows];
    const depths = this.rows.map((row) => Number(row.dataset.depth));
    this.depths = depths;
    this.counts = below(depths);
    this.folded = new Set();
    table.setAttribute("role", "treegrid");
    this.rows.forEach((row, place) => {
      row.setAttribute("role", "row");  // said again: narrow pages lay rows out in another way
      [...row.cells].forEach((cell, i) => cell.setAttribute("role", i ? "gridcell" : "rowheader"));
      row.setAttribute("aria-level", depths[place] + 1);
      row.tabIndex = place ? -1 : 0;
      if (!this.counts[place]) return;
      row.setAttribute("aria-expanded", "true");
      const twist = document.createElement("span");
      twist.className = "twist";
      twist.setAttribute("aria-hidden", "true");
      twist.textContent = "▾";
      row.cells[0].prepend(twist);
    });
    table.addEventListener("click", ({ target }) => {
      if (target.closest(".twist")) this.fold(this.rows.indexOf(target.closest("tr")));
    });
    table.addEventListener("focusin", ({ target }) => this.#current(target.closest("tbody tr")));
    table.addEventListener("keydown", (event) => this.#key(event));
  }

  fold(place, fold = !this.folded.has(place)) {
    if (!this.counts[place]) return;
    if (fold) this.folded.add(place);
    else this.folded.delete(place);
    const row = this.rows[place];
    row.setAttribute("aria-expanded", String(!fold));
    row.querySelector(".twist").textContent = fold ? "▸" : "▾";
    const visible = new Set(seen(this.counts, this.folded));
    this.rows.forEach((one, i) => { one.hidden = !visible.has(i); });
  }

  #current(row) {
    if (!row) return;
    for (const one of this.rows) if (one.tabIndex === 0 && one !== row) one.tabIndex = -1;
    row.tabIndex = 0;
  }

  #parent(place) {
    for (let i = place - 1; i >= 0; i--) if (this.depths[i] < this.depths[place]) return i;
    return place;
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName !== "TR") return;
    const place = this.rows.indexOf(event.target);
    if (place < 0) return;
    const visible = seen(this.counts, this.folded);
    const at = visible.indexOf(place);
    const isOpen = this.counts[place] && !this.folded.has(place);
    const acts = {
      ArrowDown: () => visible[at + 1],
      ArrowUp: () => visible[at - 1],
      Home: () => visible[0],
      End: () => visible.at(-1),
      ArrowRight: () => (isOpen ? visible[at + 1] : this.fold(place, false)),
      ArrowLeft: () => (isOpen ? this.fold(place, true) : this.#parent(place)),
      Enter: () => this.rows[place].querySelector("a")?.click(),
    };
    if (!acts[event.key]) return;
    event.preventDefault();
    const to = acts[event.key]();
    if (to !== undefined) this.rows[to].focus();
  }
}

const table = globalThis.document?.querySelector("[data-tree]");
if (table) new Tree(table);

/**
 * A list of any length with a scroll bar that tells the truth: fixed row height, elements used again, only what is seen
 * is drawn. What stands in a row is the caller's business.
 */

// Chromium caps an element at 33 554 428 px, Firefox near 17 900 000; beyond this the scroll bar is scaled.
export const TALLEST = 15_000_000;
const FOLLOWING = 4;  // Node.DOCUMENT_POSITION_FOLLOWING

/**
 * Where a scroll bar of limited length stands in a list of any length.
 *
 * `top` is the pixel of the whole list at the upper edge. Small movements are exact, large ones (the bar dragged, a
 * click on its track) land in proportion; both ends are always reached.
 */
export class Scroll {
  top = 0;
  last = 0;

  measure(total, view, tallest = TALLEST) {
    this.total = total;
    this.view = view;
    this.height = Math.min(total, tallest);
    this.scaled = total > tallest;
    this.top = this.#clamp(this.top);
  }

  #clamp(top) {
    return Math.max(0, Math.min(top, this.total - this.view));
  }

  get #factor() {
    return (this.total - this.view) / Math.max(1, this.height - this.view);
  }

  /** The browser scrolled to `scrollTop`: returns the new `top`. */
  moved(scrollTop) {
    const step = scrollTop - this.last;
    this.last = scrollTop;
    if (!this.scaled) return (this.top = this.#clamp(scrollTop));
    if (scrollTop <= 0) return (this.top = 0);
    if (scrollTop >= this.height - this.view) return (this.top = this.total - this.view);
    const near = Math.abs(step) < 2 * this.view;
    return (this.top = this.#clamp(near ? this.top + step : scrollTop * this.#factor));
  }

  /** Go to pixel `top` of the list: returns the scrollTop that the browser has to be given. */
  goTo(top) {
    this.top = this.#clamp(top);
    return (this.last = this.scaled ? this.top / this.#factor : this.top);
  }
}

export class VirtualList {
  /**
   * `box` scrolls, `sheet` lies in it and is as tall as all rows. `create()` makes an element,
   * `fill(element, index)` draws row `index` into it; `seen(first, end)` hears which rows are on the screen.
   */
  constructor({ box, sheet, rowHeight, create, fill, seen = () => {}, frame = globalThis.requestAnimationFrame }) {
    Object.assign(this, { box, sheet, rowHeight, create, fill, seen, frame });
    this.count = 0;
    this.scroll = new Scroll();
    this.rows = new Map();  // index → element
    this.spare = [];
    this.asked = false;
    box.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    new ResizeObserver(() => this.resize()).observe(box);
  }

  #scrolled() {
    if (this.box.scrollTop !== this.scroll.last) this.scroll.moved(this.box.scrollTop);
    clearTimeout(this.settling);
    // In a scaled list exact steps drift away from the bar; once it rests, the bar is put where it belongs.
    if (this.scroll.scaled) this.settling = setTimeout(() => this.#settle(), 200);
    this.draw();
  }

  #settle() {
    this.box.scrollTop = this.scroll.goTo(this.scroll.top);
    this.scroll.last = this.box.scrollTop;
    this.draw();
  }

  resize() {
    const { atEnd } = this;
    this.view = this.box.clientHeight;
    this.setCount(this.count);
    if (atEnd && this.count) this.show(this.count - 1, "end");
  }

  /** The list has `count` rows now; what is on the screen stays where it is. */
  setCount(count) {
    this.count = count;
    this.view ??= this.box.clientHeight;
    this.scroll.measure(Math.max(count * this.rowHeight, 1), Math.min(this.view, count * this.rowHeight));
    this.sheet.style.height = `${this.scroll.height}px`;
    this.draw();
  }

  get atEnd() {
    return this.scroll.top + this.view >= this.count * this.rowHeight - this.rowHeight / 2;
  }

  /** Bring row `index` on the screen: "center", "nearest" (move only when it is outside), or "end". */
  show(index, where = "nearest") {
    const top = index * this.rowHeight;
    const { scroll, view } = this;
    let to = scroll.top;
    if (where === "center") to = top - (view - this.rowHeight) / 2;
    else if (where === "end") to = top + this.rowHeight - view;
    else if (top < scroll.top) to = top;
    else if (top + this.rowHeight > scroll.top + view) to = top + this.rowHeight - view;
    if (to === scroll.top) return;
    this.box.scrollTop = scroll.goTo(to);
    scroll.last = this.box.scrollTop;  // the browser rounds
    this.paint();
  }

  draw() {
    if (this.asked) return;
    this.asked = true;
    this.frame.call(globalThis, () => { this.asked = false; this.paint(); });
  }

  /** Draw what is seen now; rows that stay keep their element and, unless `anew`, their content. */
  paint(anew = false) {
    const { rowHeight, scroll, view } = this;
    const first = Math.max(0, Math.floor(scroll.top / rowHeight) - 6);
    const end = Math.min(this.count, Math.ceil((scroll.top + view) / rowHeight) + 6);
    for (const [index, element] of this.rows) {
      if (index >= first && index < end) continue;
      this.rows.delete(index);
      this.spare.push(element);
    }
    const shift = scroll.scaled ? scroll.last - scroll.top : 0;
    for (let index = first; index < end; index++) {
      let element = this.rows.get(index);
      const fresh = !element;
      if (fresh) {
        element = this.spare.pop();
        if (!element) {
          element = this.create();
          this.sheet.append(element);
        }
        element.hidden = false;
        this.rows.set(index, element);
      }
      if (fresh || scroll.scaled) element.style.transform = `translateY(${index * rowHeight + shift}px)`;
      if (fresh || anew) this.fill(element, index);
    }
    for (const element of this.spare) element.hidden = true;
    this.seen(first, end);
    clearTimeout(this.ordering);
    this.ordering = setTimeout(() => this.#order(), 250);  // ms; not while somebody scrolls
  }

  /** Bring the elements into reading order, for whoever hears the page instead of seeing it. */
  #order() {
    const wanted = [...this.rows].sort(([a], [b]) => a - b).map(([, element]) => element);
    if (wanted.every((element, i) => !i || wanted[i - 1].compareDocumentPosition(element) & FOLLOWING)) return;
    const focused = wanted.indexOf(document.activeElement);  // moving that one would take the focus from it
    wanted.forEach((element, i) => {
      if (i < focused) this.sheet.insertBefore(element, wanted[focused]);
      else if (i > focused) this.sheet.append(element);
    });
  }

  /** Draw again the rows on the screen for which `which(index)` holds. */
  refresh(which = () => true) {
    for (const [index, element] of this.rows) if (which(index)) this.fill(element, index);
  }
}

/**
 * Keeping to the end of a list that grows, until somebody looks at something else: follow, pause, and "12 new ↓".
 *
 * Whoever scrolls up pauses, whoever returns to the end follows again; the toggle says which of the two it is.
 */

const UPWARD = new Set(["PageUp", "Home", "ArrowUp"]);

export class Following {
  /**
   * `list` is the VirtualList in `box`; `pill` and `toggle` are buttons. `changed(on)` is told of every change.
   * `live()` says whether more is to be expected.
   */
  constructor({ list, box, pill, toggle, on = false, live = () => true, changed = () => {} }) {
    Object.assign(this, { list, box, pill, toggle, on, live, changed });
    this.unread = 0;
    this.moved();
    this.#listen();
    this.draw();
  }

  set(on) {
    if (on) {
      this.unread = 0;
      this.toEnd();
    }
    const news = on !== this.on;
    this.on = on;
    this.draw();
    if (news) this.changed(on);
  }

  /** The list has `count` more rows. */
  grew(count) {
    if (this.on) this.toEnd();
    else this.unread += count;
    this.draw();
  }

  toEnd() {
    if (this.list.count) this.list.show(this.list.count - 1, "end");
    this.moved();
  }

  /** Draw anew: whether more is to be expected may have changed. */
  draw() {
    const { pill, toggle } = this;
    pill.hidden = this.on || this.unread < 1;
    if (!pill.hidden) pill.textContent = `${this.unread} new ↓`;
    toggle.setAttribute("aria-pressed", String(this.on));
    toggle.hidden = !this.live();
  }

  /** The page has moved the list, not a hand. */
  moved() {
    this.lastTop = this.list.scroll.top;
  }

  #listen() {
    const { box } = this;
    // Before the list has moved: while rows come in every frame, each of them would take it back to the end at once.
    const leave = () => { if (this.on && this.list.scroll.top > 0) this.set(false); };
    box.addEventListener("wheel", ({ deltaY, ctrlKey }) => { if (deltaY < 0 && !ctrlKey) leave(); }, { passive: true });
    box.addEventListener("keydown", ({ key, shiftKey }) => { if (UPWARD.has(key) || (key === " " && shiftKey)) leave(); });
    let finger = 0;
    box.addEventListener("touchstart", ({ touches }) => { finger = touches[0].clientY; }, { passive: true });
    box.addEventListener("touchmove", ({ touches }) => { if (touches[0].clientY > finger + 4) leave(); }, { passive: true });
    box.addEventListener("pointerdown", ({ target, offsetX }) => {
      if (target === box && offsetX >= box.clientWidth) leave();  // the scroll bar lies beside what the box holds
    });
    box.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    this.pill.addEventListener("click", () => { this.set(true); box.focus({ preventScroll: true }); });
    this.toggle.addEventListener("click", () => this.set(!this.on));
  }

  #scrolled() {
    const { list, lastTop } = this;
    this.moved();
    if (this.on && this.lastTop < lastTop && !list.atEnd) this.set(false);
    else if (!this.on && this.lastTop > lastTop && list.atEnd && (this.unread || this.live())) this.set(true);
  }
}

/**
 * Keyboard shortcuts of a page, and the dialog that lists them (`?`).
 *
 * A page calls `register("j", "next event", next)`; the last registration of a key wins. Shortcuts are silent while
 * somebody types, with a modifier held, and while a dialog is open. `key` is a `KeyboardEvent.key`, case and all.
 */

const keys = new Map();

/** Run `run(event)` when `key` is pressed; `says` is its line in the list. Returns a function that takes it back. */
export function register(key, says, run) {
  const entry = { key, says, run };
  keys.set(key, entry);
  return () => { if (keys.get(key) === entry) keys.delete(key); };
}

/** A line of the list for what another module listens to: keys that work in one part of the page. */
export function mention(key, says) {
  keys.set(`${key} ${says}`, { key, says, run: () => {} });
}

/** What is registered: `[{key, says}]`, in order of registration. */
export const registered = () => [...keys.values()].map(({ key, says }) => ({ key, says }));

const TYPING = new Set(["TEXTAREA", "SELECT"]);
const NOT_TEXT = new Set(["checkbox", "radio", "button", "submit", "reset", "file", "range"]);

/** Whether key presses on `element` are text or choices of its own. */
export function takesText(element) {
  if (!element?.tagName) return false;
  if (element.isContentEditable || TYPING.has(element.tagName)) return true;
  return element.tagName === "INPUT" && !NOT_TEXT.has(element.type);
}

/** The shortcut that this key press means, or undefined. */
export function find(event, { dialogOpen = false } = {}) {
  if (event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey || dialogOpen) return undefined;
  if (takesText(event.target)) return undefined;
  return keys.get(event.key);
}

const NAMES = { " ": "Space", ArrowUp: "↑", ArrowDown: "↓", ArrowLeft: "←", ArrowRight: "→", Escape: "Esc" };

function list(dialog) {
  const holder = dialog.querySelector("[data-keys]");
  holder.replaceChildren();
  for (const { key, says } of registered()) {
    const term = document.createElement("dt");
    const cap = document.createElement("kbd");
    cap.textContent = NAMES[key] ?? key;
    term.append(cap);
    const meaning = document.createElement("dd");
    meaning.textContent = says;
    holder.append(term, meaning);
  }
}

/** Listen on the document; `dialog` shows the list. */
export function start(dialog) {
  const show = () => { list(dialog); dialog.showModal(); dialog.scrollTop = 0; };
  register("?", "all keys", show);
  for (const button of document.querySelectorAll("[data-show-keys]")) button.addEventListener("click", show);
  document.addEventListener("keydown", (event) => {
    const entry = find(event, { dialogOpen: Boolean(document.querySelector("dialog[open]")) });
    if (!entry) return;
    event.preventDefault();
    entry.run(event);
  });
}

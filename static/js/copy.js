/** Copy buttons: `<button data-copy="#id">` copies the text of that element, `data-copy-text="…"` its own value. */
import { toast } from "./toast.js";

/** Put `text` on the clipboard and say so; a browser that refuses (plain http from another host) gets a sentence. */
export async function copy(text, what = "Copied") {
  try {
    await navigator.clipboard.writeText(text);
    toast(what);
  } catch {
    toast(byHand(text) ? what : "The browser refused to copy. Select the text and press Ctrl+C.");
  }
}

// The clipboard API exists on https and localhost only; elsewhere the old command still works.
function byHand(text) {
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "visually-hidden";
  area.setAttribute("aria-hidden", "true");
  const before = document.activeElement;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  before?.focus();
  return done;
}

/** What an element stands for: `data-exact` (a JSON string, so that no control character is lost on the way), or its text. */
export function exactText(source) {
  return source?.dataset.exact === undefined ? source?.textContent ?? "" : JSON.parse(source.dataset.exact);
}

export function start(root = document) {
  root.addEventListener("click", ({ target }) => {
    const button = target.closest?.("[data-copy], [data-copy-text]");
    if (!button) return;
    const source = button.dataset.copy ? document.querySelector(button.dataset.copy) : null;
    copy(button.dataset.copyText ?? exactText(source));
  });
}

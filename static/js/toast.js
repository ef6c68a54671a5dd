/** One short sentence at the foot of the page, read out politely, gone after a few seconds. */
const SHOWN_MS = 4000;  // long enough for two lines

let timer;

export function toast(sentence, { later = setTimeout, stop = clearTimeout } = {}) {
  const box = document.getElementById("toast");
  if (!box) return;
  const piece = document.createElement("p");
  piece.className = "toast";
  piece.textContent = sentence;
  box.replaceChildren(piece);
  stop(timer);
  timer = later(() => box.replaceChildren(), SHOWN_MS);
}

/** The viewer's own choices, kept in this browser: theme (system, light, dark) and zone of times (local, utc). */

function keep(name, value, storage) {
  try {
    storage.setItem(`auditweb.${name}`, value);
  } catch {
    // Storage can be full or refused; the choice then holds for this page only.
  }
}

/** Show and remember a theme; "system" follows the operating system again. Canvases redraw on `auditweb:theme`. */
export function chooseTheme(theme, { root = document.documentElement, storage = localStorage } = {}) {
  if (theme === "system") delete root.dataset.theme;
  else root.dataset.theme = theme;
  keep("theme", theme, storage);
  root.ownerDocument.dispatchEvent(new CustomEvent("auditweb:theme"));
}

/** Show and remember the zone of times. */
export function chooseZone(zone, { root = document.documentElement, storage = localStorage } = {}) {
  root.dataset.zone = zone;
  keep("zone", zone, storage);
  root.ownerDocument.dispatchEvent(new CustomEvent("auditweb:zone"));
}

/** Tie the radio buttons `name="theme"` and `name="zone"` to the choices. */
export function start() {
  const root = document.documentElement;
  const now = { theme: root.dataset.theme ?? "system", zone: root.dataset.zone ?? "local" };
  const choose = { theme: chooseTheme, zone: chooseZone };
  for (const name of Object.keys(choose)) {
    for (const radio of document.querySelectorAll(`input[type="radio"][data-choice="${name}"]`)) {
      radio.checked = radio.value === now[name];
      radio.addEventListener("change", () => { if (radio.checked) choose[name](radio.value); });
    }
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    document.dispatchEvent(new CustomEvent("auditweb:theme"));
  });
}

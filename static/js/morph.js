/**
 * Bring a piece of the page up to date with a newer copy of itself, touching only what differs: focus, selection,
 * scroll position and open `<details>` stay. Children with an `id` or a `data-key` are matched by it, others by place.
 * What a script took over (`data-own`) is left as it is.
 */

const keyOf = (node) => (node.nodeType === 1 ? node.id || node.dataset.key || "" : "");
const same = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && keyOf(a) === keyOf(b);

// What the viewer changed since: not the server's to take back.
const VIEWERS = new Set(["open", "checked"]);

function attributes(old, fresh) {
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !VIEWERS.has(name)) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (!VIEWERS.has(name) && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
}

/** Make `old` look like `fresh` (same element name). `fresh` is used up. */
export function morph(old, fresh) {
  if (old.dataset.own !== undefined) return;
  attributes(old, fresh);
  children(old, fresh);
}

function children(old, fresh) {
  const keyed = new Map();
  for (const child of old.childNodes) if (keyOf(child)) keyed.set(keyOf(child), child);
  let place = old.firstChild;
  for (const wanted of [...fresh.childNodes]) {
    const twin = keyOf(wanted) ? keyed.get(keyOf(wanted)) : place;
    if (twin && same(twin, wanted)) {
      if (twin === place) place = place.nextSibling;
      else old.insertBefore(twin, place);
      if (twin.nodeType === 1) morph(twin, wanted);
      else if (twin.data !== wanted.data) twin.data = wanted.data;
    } else {
      old.insertBefore(wanted, place);
    }
  }
  while (place) {
    const gone = place;
    place = place.nextSibling;
    gone.remove();
  }
}

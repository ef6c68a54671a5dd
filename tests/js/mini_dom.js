/** As much of a document as row.js touches, and its HTML: so that rows can be drawn and compared without a browser. */

const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/"/g, "&quot;");

class Element {
  #text = "";

  constructor(document, name) {
    Object.assign(this, { ownerDocument: document, name, children: [], attributes: new Map(), dataset: {} });
  }

  set className(value) { this.attributes.set("class", value); }
  get className() { return this.attributes.get("class") ?? ""; }
  set id(value) { this.attributes.set("id", value); }
  setAttribute(name, value) { this.attributes.set(name, String(value)); }
  getAttribute(name) { return this.attributes.get(name) ?? null; }
  removeAttribute(name) { this.attributes.delete(name); }
  append(...children) { this.children.push(...children); }
  replaceChildren(...children) { this.children = [...children]; this.#text = ""; }
  set textContent(value) { this.children = []; this.#text = value; }
  get textContent() { return this.#text + this.children.map((child) => child.textContent).join(""); }

  get outerHTML() {
    const attributes = new Map(this.attributes);
    for (const [name, value] of Object.entries(this.dataset)) attributes.set(`data-${name}`, value);
    const written = [...attributes].map(([name, value]) => ` ${name}="${escaped(value)}"`).join("");
    const inner = escaped(this.#text) + this.children.map((child) => child.outerHTML).join("");
    return `<${this.name}${written}>${inner}</${this.name}>`;
  }
}

export const document = { createElement: (name) => new Element(document, name) };

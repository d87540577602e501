// Elements without markup in strings: text is always text.

/** An element with attributes and children; a string child becomes text. */
export function make(tag, attributes = {}, ...children) {
  const element = tag.startsWith("svg:") ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4)) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** A table in a sheet; columns are [title, class]. */
export function table(caption, columns, rows) {
  const head = make("tr", {}, columns.map(([title, kind]) => make("th", { scope: "col", class: kind }, title)));
  const body = rows.map((cells) => make("tr", {}, cells.map((cell, index) => make("td", { class: columns[index][1] }, cell))));
  return make("div", { class: "sheet", tabindex: 0, role: "region", "aria-label": caption },
    make("table", {}, make("thead", {}, head), make("tbody", {}, body)));
}

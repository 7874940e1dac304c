// The only place that makes elements. Text goes in as text; what could run or load something cannot be set here at all.

const SVG = "http://www.w3.org/2000/svg";
const REFUSED = /^(on|style$|src|href$|xlink|action$|formaction$)/i;

export const byId = (id) => document.getElementById(id);

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (REFUSED.test(name)) throw new Error(`the attribute ${name} is not set here`);
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** An HTML element; children are elements or text. */
export function h(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** An SVG element. */
export function s(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

/** One of the icons of index.html. */
export function icon(name) {
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name.replace(/[^a-z]/g, "")}`);
  return s("svg", { "aria-hidden": "true" }, use);
}

let links = 0;

/** A link to a place of the same page. */
export function to(place, ...children) {
  const made = h("a", { id: `link-${links++}` }, ...children);
  made.setAttribute("href", `#${encodeURIComponent(place)}`);
  return made;
}

/** A button that calls `act` when it is pressed. Its id names it to whoever looks for it again. */
export function button(id, kind, act, ...children) {
  const made = h("button", { id, type: "button", class: kind }, ...children);
  made.addEventListener("click", act);
  return made;
}

const shown = new WeakMap();

/** Replace what is in a place, unless it would look the same; who has the focus keeps it. `signature` says how it looks. */
export function show(place, signature, make) {
  if (shown.get(place) === signature) return;
  const focused = place.contains(document.activeElement) ? document.activeElement.id : "";
  place.replaceChildren(...[make()].flat());
  shown.set(place, signature);
  if (focused) byId(focused)?.focus({ preventScroll: true });
}

/** Offer these in a list; what was chosen stays, else it is `wanted`, else the first. */
export function offer(select, names, wanted) {
  if (names.join("\n") === [...select.options].map((each) => each.value).join("\n")) return;
  const chosen = [select.value, wanted].find((name) => names.includes(name));
  select.replaceChildren(...names.map((name) => h("option", { value: name }, name)));
  if (chosen) select.value = chosen;
}

/** A table; `columns` are [label, class, cell(row)], cells are text or elements. In narrow windows each row is a block. */
export function table(caption, columns, rows) {
  const head = h("tr", {}, columns.map(([label, kind]) => h("th", { scope: "col", class: kind }, label)));
  const body = rows.map((row) =>
    h("tr", {}, columns.map(([label, kind, cell]) => h("td", { class: kind, "data-label": label }, cell(row)))));
  return h("table", {}, h("caption", { class: "sr" }, caption), h("thead", {}, head), h("tbody", {}, body));
}

/** A message in the place of what is not there: why, and what to do. */
export function message(kind, title, text, ...actions) {
  const icons = { error: "alert", empty: "empty", locked: "lock", done: "check" };
  return h("div", { class: `message ${kind}` }, icon(icons[kind] ?? "empty"),
    h("div", {}, h("p", { class: "message-title" }, title), text ? h("p", {}, text) : null, ...actions));
}

// What is typed into the search form, as the body of a search.

import { byId } from "./dom.js";

/** A field of the form that cannot be sent as it is. */
export class Wrong extends Error {
  constructor(field, says) {
    super(says);
    this.field = field;
  }
}

/** `lang=en n=3` or an object of JSON, as metadata to contain. Numbers, true, false and null are what they look
 * like; what a number could not keep as it is written, such as 01234 or more digits than it has, is text. */
export function metadata(text) {
  const typed = text.trim();
  if (!typed) return {};
  if (typed.startsWith("{")) {
    try {
      return JSON.parse(typed);
    } catch {
      throw new Wrong("filter", "This is no object of JSON. Pairs such as lang=en will do, too.");
    }
  }
  const found = Object.create(null);
  for (const [pair] of typed.matchAll(/[^\s"]+(?:"[^"]*")?/g)) {
    const at = pair.indexOf("=");
    if (at < 1) throw new Wrong("filter", `“${pair}” is no pair: write name=value.`);
    found[pair.slice(0, at)] = value(pair.slice(at + 1));
  }
  return found;
}

function value(text) {
  if (/^".*"$/.test(text)) return text.slice(1, -1);
  if (["true", "false", "null"].includes(text)) return JSON.parse(text);
  const number = Number(text);
  return Number.isFinite(number) && String(number) === text ? number : text;
}

function time(field) {
  const typed = byId(field).value;
  if (!typed) return null;
  const time = new Date(typed);
  if (Number.isNaN(time.getTime())) throw new Wrong(field, "This is no time.");
  return time.toISOString();
}

/** The body of the search that the form asks for. Throws Wrong. */
export function question() {
  const body = {
    query: byId("query").value.trim(),
    collection: byId("collection").value || "default",
    mode: document.querySelector("input[name=mode]:checked").value,
    rerank: byId("rerank").checked,
    filter: metadata(byId("filter").value),
    since: time("since"),
    until: time("until"),
    k: Number(byId("k").value),
    per_document: Number(byId("per-document").value),
    timeout_ms: 5000,
    explain: true,
  };
  if (body.since && body.until && body.since >= body.until) throw new Wrong("until", "This is not after the time from which documents count.");
  return body;
}

/** The filters of a body that are set, as the address has them: times are of no zone of anybody's. */
export function filters(body) {
  const found = { filter: byId("filter").value.trim(), since: body.since, until: body.until };
  if (body.k !== 10) found.k = String(body.k);
  if (body.per_document !== 1) found.per_document = String(body.per_document);
  return Object.fromEntries(Object.entries(found).filter(([, value]) => value));
}

/** Set every filter to what an address has. What cannot be a filter's value is as if it were not there. */
export function restoreFilters(wanted) {
  clear();
  byId("filter").value = wanted.filter ?? "";
  for (const field of ["since", "until"]) byId(field).value = local(wanted[field]);
  for (const [field, value] of [["k", wanted.k], ["per-document", wanted.per_document]]) {
    if ([...byId(field).options].some((each) => each.value === value)) byId(field).value = value;
  }
}

function local(text) {
  const time = new Date(text ?? NaN);
  if (Number.isNaN(time.getTime())) return "";
  return new Date(time.getTime() - time.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

/** How many filters are set. */
export function active() {
  const fields = ["filter", "since", "until"].filter((field) => byId(field).value.trim());
  return fields.length + Number(byId("k").value !== "10") + Number(byId("per-document").value !== "1");
}

/** Set every filter to what it is without one. */
export function clear() {
  for (const field of ["filter", "since", "until"]) byId(field).value = "";
  byId("k").value = "10";
  byId("per-document").value = "1";
}

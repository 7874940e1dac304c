// The search: form, answer, keyboard.

import { ask, told } from "./api.js";
import { button, byId, h, message, offer } from "./dom.js";
import { active, clear, filters, question, restoreFilters, Wrong } from "./filters.js";
import { compact, plural } from "./format.js";
import { result, waitingRows } from "./results.js";
import { openToken, session, whenCallerChanges } from "./session.js";

const SLOW = 180; // ms until an answer that is not there yet shows

let asking = null;
let collections = [];
let rerankers = new Map();

function state(...children) {
  byId("view-search").classList.toggle("blank", Boolean(children[0]?.classList.contains("idle")));
  byId("results-state").replaceChildren(...children);
}

function listed(rows, asked) {
  byId("results").replaceChildren(...rows.map((row, index) => result(row, index, asked)));
}

function wrong(error) {
  const field = error instanceof Wrong ? error.field : null;
  for (const name of ["filter", "since", "until"]) {
    const says = name === field ? error.message : "";
    byId(name).setCustomValidity(says);
    byId(name).setAttribute("aria-invalid", String(name === field));
  }
  byId("filter-help").classList.toggle("wrong", Boolean(field));
  byId("filter-help").textContent = field ? error.message : "Pairs such as lang=en, or an object of JSON. A document must have all of them.";
  if (field) {
    openFilters(true);
    byId(field).focus();
  }
}

/** Ask what the form says, if it asks anything. */
export async function search() {
  asking?.abort();
  showFilterCount();
  let body;
  try {
    body = question();
    wrong(null);
  } catch (error) {
    wrong(error);
    if (!(error instanceof Wrong)) failed(error);
    return;
  }
  remember(body);
  if (!body.query) {
    idle();
    return;
  }
  const mine = new AbortController();
  asking = mine;
  byId("results").setAttribute("aria-busy", "true");
  const slow = setTimeout(() => {
    listed([], body);
    state(waitingRows());
  }, SLOW);
  try {
    const answer = await ask("/v1/search", { method: "POST", body, signal: mine.signal });
    if (mine.signal.aborted) return;
    found(answer, body);
  } catch (error) {
    if (!mine.signal.aborted) failed(error);
  } finally {
    clearTimeout(slow);
    if (asking === mine) byId("results").removeAttribute("aria-busy");
  }
}

function found(answer, body) {
  listed(answer.results, body);
  byId("summary").textContent = [
    plural(answer.results.length, "result"), `${Math.max(1, Math.round(answer.took_ms.total))} ms`,
    ...(answer.generation === null ? [] : [`generation ${answer.generation}`]),
    ...(answer.degraded ? ["not reranked: there was no time for it, or the reranker is not loaded"] : []),
  ].join(" · ");
  if (answer.results.length) state();
  else state(nothing(body));
}

function nothing(body) {
  const actions = active()
    ? [button("drop-filters", "secondary", clearFilters, "Search without filters")]
    : body.mode === "text" ? [button("by-meaning", "secondary", byMeaning, "Search by meaning, too")] : [];
  const text = active() ? "No document that the filters let pass matches." : "No document in this collection matches.";
  return message("empty", "Nothing found", text, ...actions);
}

function failed(error) {
  listed([], {});
  const { title, text } = told(error);
  const again = error.status === 401
    ? button("state-token", "primary", openToken, "Enter a token")
    : button("again", "secondary", search, "Try again");
  byId("summary").textContent = title;
  state(message(error.status === 401 || error.status === 403 ? "locked" : "error", title, text, again));
}

/** What is there before anything was asked. */
function idle() {
  listed([], {});
  byId("summary").textContent = "";
  if (session.refused) {
    const says = "Searches here need a token. It is kept in this tab only, until you close it.";
    state(message("locked", "A token is needed", says, button("state-token", "primary", openToken, "Enter a token")));
    return;
  }
  const chosen = collections.find((row) => row.collection === byId("collection").value);
  const about = chosen?.model
    ? h("p", { class: "about" }, h("b", {}, compact(chosen.documents)), ` documents in ${compact(chosen.chunks)} passages, embedded by `, h("b", {}, chosen.model))
    : null;
  state(h("div", { class: "idle" }, about,
    h("p", { class: "keys" }, h("kbd", {}, "/"), "to type", h("kbd", {}, "↓"), h("kbd", {}, "↑"), "through results",
      h("kbd", {}, "Enter"), "for details", h("kbd", {}, "Esc"), "back")));
}

/** Take these for the collections that can be searched; `statuses` say more of them, if known. */
export function setCollections(names, statuses) {
  collections = statuses ?? collections;
  offer(byId("collection"), names.map((each) => each.name), "default");
  rerankers = new Map(names.map((each) => [each.name, each.reranker]));
  fitReranker();
  if (!byId("query").value && !byId("results").children.length) idle();
}

/** Nothing of what another caller was told stays; the collection that was asked for may be this one's, too. */
function forget() {
  asking?.abort();
  collections = [];
  rerankers = new Map();
  listed([], {});
  byId("summary").textContent = "";
  const chosen = byId("collection").value;
  byId("collection").replaceChildren(...(chosen ? [h("option", { value: chosen }, chosen)] : []));
}

function fitReranker() {
  const reranker = rerankers.get(byId("collection").value) ?? "";
  byId("rerank-field").title = reranker ? `By ${reranker}` : "This collection has no reranker";
  byId("rerank").disabled = !reranker;
  if (!reranker) byId("rerank").checked = false;
}

/** Keep the search in the address, so that it can be shared; the part behind # is not sent anywhere. */
function remember(body) {
  const parts = new URLSearchParams();
  if (body.query) parts.set("q", body.query);
  if (body.mode !== "hybrid") parts.set("mode", body.mode);
  if (body.collection !== "default") parts.set("collection", body.collection);
  if (body.rerank) parts.set("rerank", "true");
  for (const [name, value] of Object.entries(filters(body))) parts.set(name, value);
  if (location.hash.startsWith("#operations")) return;
  kept = parts.size ? `#search?${parts}` : "#search";
  history.replaceState(null, "", kept);
}

let kept = "#search"; // what of the address is the form's

/** Another search stands in the address, or none while the form has one. */
export function followAddress() {
  if (location.hash === kept) return;
  if (restore()) search();
  else if (location.hash === "#search") history.replaceState(null, "", kept);
}

/** Fill the form from the address; whether there was anything. */
function restore() {
  const [view, parts] = location.hash.split("?");
  if (view !== "#search" || !parts) return false;
  const wanted = Object.fromEntries(new URLSearchParams(parts));
  byId("query").value = wanted.q ?? "";
  restoreFilters(wanted);
  openFilters(active() > 0);
  byId(["vector", "text"].includes(wanted.mode) ? `mode-${wanted.mode}` : "mode-hybrid").checked = true;
  if (wanted.collection) {
    byId("collection").replaceChildren(h("option", { value: wanted.collection }, wanted.collection));
  }
  byId("rerank").checked = wanted.rerank === "true";
  if (rerankers.size) fitReranker();
  return true;
}

function openFilters(wish) {
  byId("filters").hidden = !wish;
  byId("filters-open").setAttribute("aria-expanded", String(wish));
}

function showFilterCount() {
  const count = active();
  byId("filters-count").hidden = !count;
  byId("filters-count").textContent = count ? String(count) : "";
}

function clearFilters() {
  clear();
  search();
  byId("query").focus();
}

function byMeaning() {
  byId("mode-hybrid").checked = true;
  search();
  byId("query").focus();
}

/** Arrows walk through the results, Enter opens one, Esc leads back to the question and then empties it. */
function walk(event) {
  const rows = [...byId("results").children];
  const at = rows.findIndex((row) => row.contains(document.activeElement));
  const typing = document.activeElement === byId("query");
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step && (typing || at >= 0)) {
    const next = at + step;
    if (next < 0) byId("query").focus();
    else rows[Math.min(next, rows.length - 1)]?.focus();
    event.preventDefault();
  } else if (event.key === "Enter" && document.activeElement === rows[at]) {
    rows[at].querySelector("button").click();
  } else if (event.key === "Escape" && at >= 0) {
    byId("query").focus();
  } else if (event.key === "Escape" && typing && byId("query").value) {
    byId("query").value = "";
    search();
    event.preventDefault();
  }
}

export function startSearch() {
  restore();
  byId("search-form").addEventListener("submit", (event) => {
    event.preventDefault();
    search();
  });
  byId("collection").addEventListener("change", fitReranker);
  for (const id of ["collection", "mode-hybrid", "mode-vector", "mode-text", "rerank", "filter", "since", "until", "k", "per-document"]) {
    byId(id).addEventListener("change", search);
  }
  byId("query").addEventListener("search", () => byId("query").value || search());
  byId("filters-open").addEventListener("click", () => openFilters(byId("filters").hidden));
  byId("filters-clear").addEventListener("click", clearFilters);
  byId("view-search").addEventListener("keydown", walk);
  whenCallerChanges((another) => {
    if (another) forget();
    search();
  });
  showFilterCount();
}

// Found rows: the passage with its matched words marked, and why it was found.

import { button, h, icon } from "./dom.js";
import { ago, moment, number, ordinal, score, seconds } from "./format.js";

/** A text as text and marks: the words as they stand there, whole. */
export function marked(text, words) {
  const known = [...words].filter(Boolean).sort((a, b) => b.length - a.length);
  if (!known.length) return [text];
  const any = known.map((word) => word.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&")).join("|");
  const pattern = new RegExp(`(?<![\\p{L}\\p{N}_])(${any})(?![\\p{L}\\p{N}_])`, "gu");
  return text.split(pattern).map((part, index) => (index % 2 ? h("mark", {}, part) : part)).filter((part) => part !== "");
}

const LEGS = { vector: "meaning", text: "words" };

/** In a few words why a row was found. */
export function reasons(why, { mode, rerank, place }) {
  if (!why) return ["The reasons are unknown: there was no time to ask for them"];
  const legs = Object.keys(LEGS).filter((leg) => mode === "hybrid" || mode === leg);
  const found = legs.map((leg) => (why[leg] ? `${ordinal(why[leg])} by ${LEGS[leg]}` : `not in the first ${why.depth} by ${LEGS[leg]}`));
  return rerank ? [...found, `${ordinal(place)} after reranking`] : found;
}

function why(row, question, place) {
  const told = reasons(row.why, { ...question, place });
  const kinds = question.mode === "hybrid" ? ["vector", "text", "rerank"] : [question.mode, "rerank"];
  return h("ul", { class: "why", "aria-label": "Why it was found" }, told.map((text, index) =>
    h("li", { class: row.why ? kinds[index] : "unknown", "data-far": String(text.startsWith("not")) }, text)));
}

function facts(row) {
  const delay = Math.max(0, (new Date(row.indexed_at) - new Date(row.event_time)) / 1000);
  const known = [
    ["Document", row.document_id], ["Passage", number(row.ordinal + 1)], ["Version", number(row.version)],
    ["Changed", moment(row.event_time)], ["Searchable", `${moment(row.indexed_at)}, ${seconds(delay)} later`],
    ["Score", String(row.score)],
  ];
  const own = Object.entries(row.metadata).map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)]);
  const list = (rows) => h("dl", {}, rows.map(([name, value]) => h("div", {}, h("dt", { dir: "auto" }, name), h("dd", { dir: "auto" }, value))));
  return [list(known), own.length ? h("h3", {}, "Metadata") : null, own.length ? list(own) : null];
}

/** One row of an answer; `index` from 0. */
export function result(row, index, question) {
  const words = row.why?.words ?? [];
  const place = index + 1;
  const more = h("div", { class: "facts", id: `facts-${index}`, hidden: true }, facts(row));
  const passage = h("p", { class: "passage", dir: "auto" }, marked(row.chunk.trim(), words));
  const toggle = button(`details-${index}`, "quiet details", () => open(toggle.getAttribute("aria-expanded") !== "true"),
    h("span", {}, "Details"), h("span", { class: "sr" }, ` of result ${place}`), icon("chevron"));
  const open = (wanted) => {
    toggle.setAttribute("aria-expanded", String(wanted));
    more.hidden = !wanted;
    passage.classList.toggle("whole", wanted);
  };
  toggle.setAttribute("aria-expanded", "false");
  toggle.setAttribute("aria-controls", more.id);
  return h("li", { class: "result", id: `result-${index}`, tabindex: "-1" },
    h("div", { class: "result-head" },
      h("h2", { dir: "auto" }, row.title ? marked(row.title, words) : row.document_id),
      h("span", { class: "score", title: "Score: higher is better, comparable within one answer" }, "score ", h("b", {}, score(row.score)))),
    h("p", { class: "source" }, h("bdi", {}, row.document_id), h("span", {}, `changed ${ago(row.event_time)}`)),
    passage,
    h("div", { class: "result-foot" }, why(row, question, place), toggle),
    more);
}

/** Rows that are on their way. */
export function waitingRows() {
  return h("div", { class: "skeleton", "aria-hidden": "true" }, [1, 2, 3].map(() => h("div", {}, h("i", {}), h("i", {}), h("i", {}))));
}

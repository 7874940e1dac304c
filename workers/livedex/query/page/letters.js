// Dead letters: what operators see, and may replay or give up.

import { ask, told } from "./api.js";
import { button, byId, h, message, show, table } from "./dom.js";
import { ago, moment, number } from "./format.js";
import { session } from "./session.js";

const LIMIT = 100;
let busy = null; // the letter that is being worked on
let candidate = null; // that may be given up
let last = null;
let asked = 0; // how often: only the newest answer is shown
let caller = 0; // counts them

/** Show nothing of what another caller was told. */
export function forgetLetters() {
  asked += 1;
  caller += 1;
  [last, busy, candidate] = [null, null, null];
  note("");
  said("");
  if (byId("discard-dialog").open) byId("discard-dialog").close();
  show(byId("letters"), "none", () => []);
}

/** Read the list again, and show it. */
export async function refreshLetters() {
  const mine = ++asked;
  if (!session.who?.operator) {
    note(session.who ? "Dead letters are shown to operators. This token is none’s." : "");
    show(byId("letters"), "none", () => []);
    byId("letters-field").hidden = true;
    return;
  }
  byId("letters-field").hidden = false;
  try {
    const found = await ask(`/v1/dead-letters?state=${byId("letters-state").value}&limit=${LIMIT}`);
    if (mine !== asked) return;
    last = found;
  } catch (error) {
    if (mine !== asked) return;
    const { title, text } = told(error);
    note(`${title}. ${text}`);
    return;
  }
  draw();
}

function note(text) {
  byId("letters-note").hidden = !text;
  byId("letters-note").textContent = text;
}

function said(text) {
  byId("letters-said").textContent = text;
}

function draw() {
  const { letters, may_change: may, why_not: whyNot } = last;
  const open = letters.some((letter) => letter.state === "open");
  note(!may && open ? whyNot[0].toUpperCase() + whyNot.slice(1) + "." : "");
  const signature = JSON.stringify([letters.map((each) => [each, ago(each.failed_at)]), may, busy]);
  show(byId("letters"), signature, () => (letters.length ? rows(letters, may) : nothing()));
}

function nothing() {
  const state = byId("letters-state").value;
  const text = state === "open" ? "Every record of the log could be indexed." : "There are none in this state.";
  return message(state === "open" ? "done" : "empty", state === "open" ? "No open dead letters" : "No dead letters", text);
}

function rows(letters, may) {
  const shown = table("Dead letters, the newest first", [
    ["Reason", "", (row) => h("code", { class: "badge" }, row.reason)],
    ["Record", "main", (row) => h("div", { class: "letter" }, h("b", { dir: "auto" }, row.document_id ?? "no document id"),
      h("span", { class: "mono" }, `${row.collection} · ${row.place}`), h("span", { class: "why-dead", dir: "auto" }, row.detail))],
    ["Tries", "figure", (row) => number(row.attempts)],
    ["Failed", "", (row) => h("span", { title: moment(row.failed_at) }, ago(row.failed_at))],
    ...(may || letters.some((row) => row.state !== "open") ? [[letters.every((row) => row.state === "open") ? "Actions" : "State", "acts", (row) => acts(row, may)]] : []),
  ], letters);
  return letters.length === LIMIT ? [shown, h("p", { class: "help" }, `The newest ${LIMIT}. livedex dead-letters list has all.`)] : shown;
}

function acts(row, may) {
  if (row.state !== "open") return h("span", { class: "badge" }, row.state);
  if (!may) return "open";
  if (busy === row.id) return h("span", { class: "working" }, "Working");
  const of = h("span", { class: "sr" }, ` dead letter ${row.id}`);
  return h("div", { class: "buttons" },
    button(`replay-${row.id}`, "secondary small", () => change("replay", row), "Replay", of),
    button(`discard-${row.id}`, "quiet small", () => confirm(row), "Discard", of.cloneNode(true)));
}

function confirm(row) {
  candidate = row;
  byId("discard-says").textContent = `Dead letter ${row.id}${row.document_id ? `, document “${row.document_id}”,` : ""} will count as open no more. `
    + "Its record stays, and livedex dead-letters can still show and replay it.";
  byId("discard-dialog").showModal();
  byId("discard-cancel").focus();
}

async function change(verb, row) {
  const mine = caller;
  busy = row.id;
  said("");
  draw();
  let says;
  try {
    says = outcome(await ask(`/v1/dead-letters/${row.id}/${verb}`, { method: "POST" }));
  } catch (error) {
    const { title, text } = told(error);
    says = `${title}. ${text}`;
  }
  if (mine !== caller) return;
  said(says);
  busy = null;
  await refreshLetters();
  if (!byId("letters").contains(document.activeElement)) byId("letters-state").focus({ preventScroll: true });
}

function outcome(answer) {
  const which = `Dead letter ${answer.id}`;
  const detail = answer.detail ? ` ${answer.detail[0].toUpperCase()}${answer.detail.slice(1)}.` : "";
  if (answer.result === "replayed") return `${which} was replayed: ${answer.outcome}.${detail}`;
  if (answer.result === "discarded") return `${which} was discarded.`;
  if (answer.result === "failed") return `${which} failed again, with ${answer.reason}.${detail}`;
  return `${which} was left as it is.${detail}`;
}

export function startLetters() {
  byId("letters-state").addEventListener("change", refreshLetters);
  byId("discard-cancel").addEventListener("click", () => byId("discard-dialog").close());
  byId("discard-form").addEventListener("submit", (event) => {
    event.preventDefault();
    byId("discard-dialog").close();
    if (candidate) change("discard", candidate);
    candidate = null;
  });
}

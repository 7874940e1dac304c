// Who is at the page: the caller that the worker knows by the token, and the dialog to type one.

import { ask, keepToken, Refused, token } from "./api.js";
import { byId } from "./dom.js";

const FORM = /^[A-Za-z0-9._~+/-]{16,512}=*$/; // as the tokens file has them

/** `who`: what /v1/caller answers; null while unknown. `refused`: whether it asked for another token. */
export const session = { who: null, refused: false };

const listeners = [];

let asked = token(); // the token that the page was drawn with

/** Call this whenever the caller is known anew, with whether it is another one: nothing that the one before was told may stay. */
export const whenCallerChanges = (listener) => listeners.push(listener);

/** Ask who we are, and tell everybody. */
export async function refreshCaller() {
  try {
    session.who = await ask("/v1/caller");
    session.refused = false;
  } catch (error) {
    session.who = null;
    session.refused = error instanceof Refused && error.status === 401;
  }
  const button = byId("token-open");
  button.hidden = !(session.refused || session.who?.tokens);
  button.dataset.state = session.who?.tokens ? (session.who.operator ? "operator" : "known") : "missing";
  byId("token-label").textContent = session.who?.tokens ? `Token: ${session.who.name}` : "Token: none";
  const another = token() !== asked;
  asked = token();
  for (const listener of listeners) listener(another);
}

/** Let somebody type a token. */
export function openToken() {
  byId("token").value = "";
  byId("token-wrong").textContent = "";
  byId("token-forget").hidden = !token();
  byId("token-dialog").showModal();
  byId("token").focus();
}

async function use(event) {
  event.preventDefault();
  const typed = byId("token").value.trim();
  if (!FORM.test(typed)) {
    byId("token-wrong").textContent = "A token has 16 to 512 letters, digits and . _ ~ + / -";
    return;
  }
  const before = token();
  keepToken(typed);
  await refreshCaller();
  if (session.refused) {
    keepToken(before);
    if (before) await refreshCaller();
    byId("token-wrong").textContent = "The token is not, or no longer, one of those that may ask here.";
    byId("token").select();
    return;
  }
  byId("token-dialog").close();
  // what opened the dialog may be gone by now
  if (!byId("view-search").hidden) byId("query").focus();
}

async function forget() {
  keepToken("");
  byId("token-dialog").close();
  await refreshCaller();
}

export function startSession() {
  byId("token-open").addEventListener("click", openToken);
  byId("token-form").addEventListener("submit", use);
  byId("token-cancel").addEventListener("click", () => byId("token-dialog").close());
  byId("token-forget").addEventListener("click", forget);
}

// Starts the page: which view is shown, the theme, and the keys that work everywhere.

import { byId } from "./dom.js";
import { startLetters } from "./letters.js";
import { refresh, startOperations } from "./operations.js";
import { followAddress, startSearch } from "./search.js";
import { refreshCaller, startSession } from "./session.js";

const THEMES = { auto: "automatic", light: "light", dark: "dark" };

function showTheme(theme) {
  const others = { auto: "light", light: "dark", dark: "auto" };
  byId("theme-icon").setAttribute("href", `#i-${theme}`);
  byId("theme-label").textContent = `Theme: ${THEMES[theme]}. Change to ${THEMES[others[theme]]}`;
  byId("theme").title = `Theme: ${THEMES[theme]}`;
  byId("theme").dataset.next = others[theme];
}

function changeTheme() {
  const theme = byId("theme").dataset.next;
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("livedex.theme", theme);
  } catch {
    // storage is forbidden here: it holds until the page is closed
  }
  showTheme(theme);
}

function view() {
  const name = location.hash.startsWith("#operations") ? "operations" : "search";
  for (const each of ["search", "operations"]) {
    byId(`view-${each}`).hidden = each !== name;
    if (each === name) byId(`nav-${each}`).setAttribute("aria-current", "page");
    else byId(`nav-${each}`).removeAttribute("aria-current");
  }
  document.title = name === "search" ? "Search · livedex" : "Operations · livedex";
  if (name === "operations") refresh();
  else followAddress();
}

function keys(event) {
  const typing = event.target.closest?.("input, select, textarea, [contenteditable]");
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || typing || document.querySelector("dialog[open]")) return;
  event.preventDefault();
  if (byId("view-search").hidden) location.hash = "#search";
  view();
  byId("query").focus();
  byId("query").select();
}

// The link to the content must not change the view, which stands in the address too.
function skip(event) {
  event.preventDefault();
  byId("content").focus();
}

showTheme(document.documentElement.dataset.theme ?? "auto");
startSession();
startSearch();
startOperations();
startLetters();
byId("theme").addEventListener("click", changeTheme);
byId("skip").addEventListener("click", skip);
document.addEventListener("keydown", keys);
addEventListener("hashchange", view);
view();
if (!byId("view-search").hidden) byId("query").focus();
refreshCaller();

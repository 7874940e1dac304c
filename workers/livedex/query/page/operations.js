// The operations view: asks the worker every few seconds while somebody looks, and draws what came.

import { ask, told } from "./api.js";
import { Chart } from "./chart.js";
import { button, byId, message, offer } from "./dom.js";
import { clock, seconds } from "./format.js";
import { forgetLetters, refreshLetters } from "./letters.js";
import { generations, level, partitions, tiles, workers, worst } from "./panels.js";
import { setCollections } from "./search.js";
import { openToken, whenCallerChanges } from "./session.js";

const OFTEN = 4000; // ms between looks while the view is open,
const SELDOM = 15000; // while only the search is,
const WINDOW = 900; // seconds that the charts show
const SOON = 800; // ms, while Kafka is asked
const GLANCE = 30; // seconds that the line at the top stays while Kafka is asked

const nothing = () => ({ overview: null, status: null, logAt: 0, history: new Map() }); // history: collection -> [[at, staleness]]

let known = nothing(); // of this caller: another one's begins anew
let charts = null;
let timer = null;
let paused = false;

const looking = () => !byId("view-operations").hidden;

function pill(kind, text) {
  byId("pill").dataset.level = kind;
  byId("pill-text").textContent = text;
}

/** Ask now, show what came, and ask again later. */
export async function refresh() {
  clearTimeout(timer);
  if (document.hidden) return;
  const mine = known;
  try {
    await look(mine);
    if (mine === known) trouble(null);
  } catch (error) {
    if (mine === known) trouble(error);
  }
  if (mine !== known) return; // of another caller meanwhile, for whom somebody asks already
  clearTimeout(timer);
  if (!paused) timer = setTimeout(refresh, known.overview?.log.state === "asking" ? SOON : looking() ? OFTEN : SELDOM);
}

/** Ask for what is shown. What comes when the caller is another one already is dropped. */
async function look(mine) {
  const overview = await ask("/v1/overview");
  const status = !mine.status || looking() ? await ask("/v1/status") : mine.status;
  if (mine !== known) return;
  Object.assign(known, { overview, status });
  remember(overview);
  setCollections(overview.collections, status.collections);
  choose(overview.collections.map((row) => row.name));
  glance();
  if (looking()) {
    draw();
    await refreshLetters();
  }
}

function remember({ at, log, partitions: rows }) {
  if (log.state !== "known") return;
  known.logAt = at;
  for (const name of new Set(rows.map((row) => row.collection))) {
    const stale = worst(rows.filter((row) => row.collection === name));
    if (stale === null) continue;
    known.history.set(name, [...(known.history.get(name) ?? []), [at, stale]].filter(([when]) => when > at - WINDOW));
  }
}

function choose(names) {
  offer(byId("shown"), names, "default");
  byId("shown-field").hidden = names.length < 2;
}

/** The line at the top of every view. */
function glance() {
  const { at, log, partitions: rows } = known.overview;
  if (log.state === "asking" && at - known.logAt < GLANCE) return;
  const stale = worst(rows);
  const says = { good: "Up to date", warn: `${seconds(stale ?? 0)} behind`, bad: `${seconds(stale ?? 0)} behind` };
  pill(level(stale), says[level(stale)] ?? (rows.length ? (log.state === "asking" ? "Asking Kafka" : "Staleness unknown") : "Nothing indexed"));
}

function draw() {
  const { overview, status } = known;
  const chosen = byId("shown").value;
  const mine = overview.partitions.filter((row) => row.collection === chosen);
  const fresh = overview.freshness.find((row) => row.collection === chosen) ?? null;
  tiles({ fresh, partitions: mine, log: overview.log, letters: status.dead_letters, window: overview.window_seconds });
  partitions(mine, overview.log, status.sources.filter((row) => row.collection === chosen));
  workers(overview.partitions, status.collections, status.workers);
  generations(status.collections);
  drawCharts(overview, fresh, chosen);
  byId("when").textContent = paused ? `Paused at ${clock(overview.at)}` : `Updated ${clock(overview.at)}`;
}

function drawCharts({ at, slice_seconds: slice }, fresh, chosen) {
  charts ??= {
    freshness: new Chart(byId("chart-freshness"), "Freshness"),
    staleness: new Chart(byId("chart-staleness"), "Staleness"),
  };
  const slices = fresh?.slices ?? [];
  const stale = known.history.get(chosen) ?? [];
  const span = [120, 360].find((each) => stale.length && at - stale[0][0] < each * 0.9) ?? (stale.length ? WINDOW : 120);
  const points = (field) => slices.map((each) => [Math.min(at, each.at + slice / 2), each[field]]).filter(([when]) => when >= at - WINDOW);
  const common = { now: at, window: WINDOW };
  charts.freshness.update({
    ...common, gap: 2.5 * slice, nothing: "No document changed",
    series: [{ name: "p95", kind: "first", points: points("p95") }, { name: "p50", kind: "second", points: points("p50") }],
  });
  charts.staleness.update({
    ...common, window: span, gap: 45, nothing: "Unknown so far",
    series: [{ name: "oldest", kind: "third", points: stale }],
  });
}

function trouble(error) {
  const place = byId("operations-state");
  byId("operations-body").classList.toggle("old", Boolean(error));
  byId("operations-body").hidden = Boolean(error) && !known.overview;
  if (!error) {
    place.replaceChildren();
    return;
  }
  const { title, text } = told(error);
  const needsToken = error.status === 401;
  pill(needsToken ? "unknown" : "bad", needsToken ? "Token needed" : "No answer");
  const old = known.overview ? ` What you see is of ${clock(known.overview.at)}.` : "";
  const act = needsToken ? button("operations-token", "primary", openToken, "Enter a token") : button("operations-again", "secondary", refresh, "Try again");
  place.replaceChildren(message(needsToken ? "locked" : "error", title, text + old, act));
}

function pause() {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  byId("pause").textContent = paused ? "Resume" : "Pause";
  if (paused) {
    clearTimeout(timer);
    if (known.overview) draw();
  } else refresh();
}

export function startOperations() {
  byId("pause").addEventListener("click", pause);
  byId("shown").addEventListener("change", () => known.overview && draw());
  document.addEventListener("visibilitychange", () => !paused && refresh());
  whenCallerChanges((another) => {
    if (another) {
      known = nothing();
      forgetLetters();
      byId("operations-body").hidden = true;
      pill("unknown", "Connecting");
    }
    refresh();
  });
}

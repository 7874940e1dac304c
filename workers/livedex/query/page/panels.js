// What the operations view shows of an overview and a status, part by part.

import { byId, h, message, show, table } from "./dom.js";
import { ago, compact, duration, moment, number, plural, seconds } from "./format.js";

const STALE = 10; // seconds from which staleness is worth a colour, and
const VERY_STALE = 60; // from which it is a fault

/** How worrying a staleness in seconds is; null: it is unknown. */
export const level = (staleness) =>
  (staleness === null ? "unknown" : staleness >= VERY_STALE ? "bad" : staleness >= STALE ? "warn" : "good");

/** The highest staleness of some partitions, null while one of them is unknown. */
export function worst(partitions) {
  const known = partitions.map((row) => row.staleness_seconds);
  return known.length && !known.includes(null) ? Math.max(...known) : null;
}

const total = (rows, field) => (rows.some((row) => row[field] === null) ? null : rows.reduce((sum, row) => sum + row[field], 0));

function tile(name, kind, figure, unit, says) {
  return h("div", { class: "tile", "data-level": kind }, h("dt", {}, name),
    h("dd", {}, h("b", {}, figure), unit ? h("span", { class: "unit" }, unit) : null, h("small", {}, says)));
}

const UNKNOWN = ["–", ""];

export function tiles({ fresh, partitions, log, letters, window }) {
  const stale = worst(partitions);
  const lag = total(partitions, "lag");
  const open = letters === null ? null : Object.values(letters).reduce((sum, count) => sum + count, 0);
  const why = log.state === "asking" ? "asking Kafka" : "Kafka’s end is unknown";
  const shown = [
    ["Freshness, p95", "plain", ...(fresh ? duration(fresh.p95) : UNKNOWN),
      fresh ? `${plural(fresh.documents, "document")} changed in ${window / 60} min` : `no document changed in ${window / 60} min`],
    ["Staleness", level(stale), ...(stale === null ? UNKNOWN : duration(stale)), stale === null ? why : stale === 0 ? "everything is applied" : "oldest event not applied"],
    ["Lag", "plain", ...(lag === null ? UNKNOWN : [compact(lag), ""]), lag === null ? why : `offsets, in ${plural(partitions.length, "partition")}`],
    ["Dead letters", open === null ? "unknown" : open ? "warn" : "good", ...(open === null ? UNKNOWN : [compact(open), ""]),
      open === null ? "for operators" : open ? "open" : "none is open"],
  ];
  show(byId("tiles"), JSON.stringify(shown), () => shown.map((each) => tile(...each)));
}

export function partitions(rows, log, sources) {
  const states = new Map(sources.map((row) => [row.topic, row]));
  const stopped = sources.filter((row) => row.state !== "live");
  const unknown = log.state === "unknown" ? `Lag and staleness are unknown. ${log.problem ? `${log.problem[0].toUpperCase()}${log.problem.slice(1)}.` : ""}` : "";
  const signature = JSON.stringify([rows.map((row) => [row, ago(row.updated_at)]), unknown, stopped]);
  show(byId("partitions"), signature, () => (rows.length || stopped.length ? [
    ...(unknown ? [h("p", { class: "note" }, unknown)] : []),
    ...stopped.map((row) => h("p", { class: "note bad" }, `${row.topic} is ${row.state}${row.reason ? `: ${row.reason}` : ""}.`)),
    table("Partitions", [
      ["Topic", "main", (row) => h("span", { class: "mono" }, row.topic)],
      ["Partition", "figure", (row) => number(row.partition)],
      ["Lag", "figure", (row) => (row.lag === null ? "–" : number(row.lag))],
      ["Staleness", "figure", (row) => h("span", { class: "stale", "data-level": level(row.staleness_seconds) },
        row.staleness_seconds === null ? "–" : seconds(row.staleness_seconds))],
      ["Applied up to", "figure", (row) => number(row.next_offset)],
      ["Last applied", "", (row) => h("span", { title: moment(row.updated_at) }, ago(row.updated_at))],
      ["State", "", (row) => h("span", { class: "badge" }, states.get(row.topic)?.state ?? "live")],
    ], rows),
  ] : message("empty", "No partition yet", "An index worker claims the partitions of a topic when it starts.")));
}

/** The workers that there are, and those that own partitions still; `listed` is null for who may not see them all. */
function everyWorker(rows, collections, listed) {
  const found = new Map((listed ?? []).map((each) => [each.worker, { ...each }]));
  const known = (worker) => {
    if (!found.has(worker)) found.set(worker, { worker, kind: "index", connected: null, partitions: 0, updated_at: null, texts: false });
    return found.get(worker);
  };
  if (!listed) {
    for (const { owner, updated_at: at } of rows) {
      if (!owner) continue;
      const mine = known(owner);
      mine.partitions += 1;
      if (!mine.updated_at || mine.updated_at < at) mine.updated_at = at;
    }
  }
  for (const { index } of collections) if (index?.worker) known(index.worker);
  return [...found.values()].map((each) => ({
    ...each, upkeep: collections.filter(({ index }) => index?.worker === each.worker).map((row) => row.collection),
  }));
}

function worker(each) {
  const index = each.kind === "index";
  const applied = each.updated_at ? `applied ${ago(each.updated_at)}` : "applied nothing yet";
  return h("li", {}, h("div", {}, h("b", { class: "mono" }, each.worker), h("span", {}, index ? applied : "answers searches")),
    h("div", { class: "tags" },
      each.connected === null ? null : h("span", { class: `badge ${each.connected ? "good" : "bad"}` }, each.connected ? "connected" : "gone"),
      h("span", { class: "badge" }, index ? plural(each.partitions, "partition") : "query worker"),
      each.texts ? h("span", { class: "badge" }, "embeds for SQL") : null,
      each.upkeep.map((name) => h("span", { class: "badge accent" }, `upkeep of ${name}`))));
}

export function workers(rows, collections, listed) {
  const all = everyWorker(rows, collections, listed);
  const signature = JSON.stringify(all.map((each) => [each, each.updated_at && ago(each.updated_at)]));
  show(byId("workers"), signature, () => (all.length ? h("ul", { class: "rows" }, all.map(worker))
    : message("empty", "No worker yet", "livedex index applies the log; none has claimed a partition.")));
}

function progress(generation) {
  const share = generation.documents ? generation.built / generation.documents : 1;
  const percent = Math.floor(share * 100);
  return h("div", { class: "progress" }, h("progress", { max: "1", value: String(share), "aria-label": `Generation ${generation.generation}, built` }),
    h("span", {}, generation.complete ? "complete" : `${percent} % of ${compact(generation.documents)}`));
}

function ofIndex(index) {
  if (!index || index.state === "none") return "exact search, no index";
  const recall = index.recall === null ? "" : `, recall ${index.recall.toFixed(3)}`;
  const done = index.percent === null ? "" : ` ${index.percent} %`;
  return `index ${index.phase ?? index.state}${done}${recall}`;
}

export function generations(collections) {
  show(byId("generations"), JSON.stringify(collections), () => (collections.length ? h("ul", { class: "rows" }, collections.map((row) =>
    h("li", { class: "collection" },
      h("div", {}, h("b", {}, row.collection), h("span", {}, row.model
        ? `${plural(row.documents, "document")}, ${plural(row.chunks, "chunk")}` : "no generation yet")),
      row.model ? h("div", { class: "tags" }, h("span", { class: "badge accent" }, `generation ${row.generation}, active`),
        h("span", { class: "model" }, `${row.model}, ${row.dimension} dimensions, ${ofIndex(row.index)}`)) : null,
      row.index?.problem ? h("p", { class: "note" }, row.index.problem) : null,
      row.generations.map((each) => h("div", { class: "tags" }, h("span", { class: "badge" }, `generation ${each.generation}, ${each.state}`),
        h("span", { class: "model" }, each.model), each.state === "building" ? progress(each) : null,
        each.problem || each.reason ? h("p", { class: "note" }, each.problem ?? each.reason) : null)))))
    : message("empty", "No collection", "livedex apply makes collections from the settings.")));
}

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

export function workers(rows, collections) {
  const owned = new Map();
  for (const row of rows) owned.set(row.owner, [...(owned.get(row.owner) ?? []), row]);
  for (const { index } of collections) if (index?.worker && !owned.has(index.worker)) owned.set(index.worker, []);
  const list = [...owned].filter(([owner]) => owner).map(([owner, mine]) => ({
    owner, mine, upkeep: collections.filter(({ index }) => index?.worker === owner).map((row) => row.collection),
    at: mine.map((row) => row.updated_at).sort().at(-1),
  }));
  const signature = JSON.stringify(list.map((each) => [each.owner, each.mine.length, each.upkeep, each.at && ago(each.at)]));
  show(byId("workers"), signature, () => (list.length ? h("ul", { class: "rows" }, list.map(({ owner, mine, upkeep, at }) =>
    h("li", {}, h("div", {}, h("b", { class: "mono" }, owner), h("span", {}, at ? `applied ${ago(at)}` : "applied nothing yet")),
      h("div", { class: "tags" }, h("span", { class: "badge" }, plural(mine.length, "partition")),
        upkeep.map((name) => h("span", { class: "badge accent" }, `upkeep of ${name}`))))))
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

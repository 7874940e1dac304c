// The reference: what /openapi.json says of routes and forms, as text. It asks nothing else, and has no token.

import { byId, h, message, table, to } from "./dom.js";

const VERBS = ["get", "post", "put", "patch", "delete"];
const DASH = "–";

/** The name of the form that a schema points to, or null. */
const named = (schema) => schema?.$ref?.split("/").at(-1) ?? null;

/** What a value may be: text and links to forms. */
export function kind(schema = {}) {
  const name = named(schema);
  if (name) return [to(`form-${name}`, name)];
  const choice = schema.anyOf ?? schema.oneOf;
  if (choice) return choice.flatMap((each, index) => [...(index ? [" or "] : []), ...kind(each)]);
  if ("const" in schema) return [JSON.stringify(schema.const)];
  if (schema.enum) return [schema.enum.map((each) => JSON.stringify(each)).join(", ")];
  if (schema.type === "array") return ["list of ", ...kind(schema.items)];
  if (schema.properties && schema.title) return [to(`form-${schema.title}`, schema.title)];
  return [[schema.type ?? "anything", schema.format ? ` (${schema.format})` : ""].join("")];
}

/** The bounds and the default of a value, in words. */
function bounds(schema = {}) {
  const range = (least, most, unit) => {
    if (least !== undefined && most !== undefined) return `${least} to ${most}${unit}`;
    if (least !== undefined) return `at least ${least}${unit}`;
    return most === undefined ? null : `at most ${most}${unit}`;
  };
  return [
    range(schema.minimum, schema.maximum, ""), range(schema.minLength, schema.maxLength, " characters"),
    range(schema.minItems, schema.maxItems, " items"), "default" in schema ? `default ${JSON.stringify(schema.default)}` : null,
  ].filter(Boolean).join("; ");
}

function fields(caption, rows) {
  return table(caption, [
    ["Name", "main", (row) => h("code", {}, row.name, row.required ? h("b", { class: "verb", title: "must be there" }, " *") : null)],
    ["Value", "", (row) => h("span", {}, ...kind(row.schema))],
    ["Bounds", "", (row) => bounds(row.schema) || DASH],
    ["Meaning", "", (row) => row.description || row.schema?.description || DASH],
  ], rows);
}

function answers(responses) {
  const rows = Object.entries(responses).map(([status, { description, content = {} }]) => ({ status, description, content }));
  return table("Answers", [
    ["Status", "main", (row) => h("code", {}, row.status)],
    ["Meaning", "", (row) => row.description],
    ["Form", "", (row) => h("span", {}, ...Object.entries(row.content).flatMap(([type, { schema }]) => [...kind(schema), ` as ${type}`]))],
  ], rows);
}

const place = (verb, path) => `${verb}-${path}`;

function route({ verb, path, says }) {
  const body = says.requestBody?.content["application/json"]?.schema;
  const parameters = says.parameters ?? [];
  return h("section", { class: "panel", id: encodeURIComponent(place(verb, path)) },
    h("h3", {}, h("span", { class: "verb" }, verb.toUpperCase()), h("code", {}, path)),
    says.description ? h("p", {}, says.description) : null,
    ...(body ? [h("h4", {}, "Body"), h("p", {}, ...kind(body), " as application/json")] : []),
    ...(parameters.length ? [h("h4", {}, "Parameters"), fields("Parameters", parameters)] : []),
    h("h4", {}, "Answers"), answers(says.responses));
}

function form([name, schema]) {
  const required = new Set(schema.required);
  const rows = Object.entries(schema.properties ?? {}).map(([field, each]) => ({ name: field, schema: each, required: required.has(field) }));
  return h("section", { class: "panel", id: encodeURIComponent(`form-${name}`) }, h("h3", {}, h("code", {}, name)),
    schema.description ? h("p", {}, schema.description) : null,
    rows.length ? fields(`Fields of ${name}`, rows) : h("p", {}, ...kind({ ...schema, title: undefined })));
}

function draw(document) {
  const routes = Object.entries(document.paths).flatMap(([path, verbs]) =>
    VERBS.filter((verb) => verb in verbs).map((verb) => ({ verb, path, says: verbs[verb] })));
  byId("about").textContent = `${document.info.title} ${document.info.version}. ${document.info.summary ?? ""} Names with * must be there.`;
  byId("reference").replaceChildren(
    h("ul", { class: "routes" }, routes.map(({ verb, path, says }) =>
      h("li", {}, to(place(verb, path), h("span", { class: "mono" }, `${verb.toUpperCase()} ${path}`)), (says.description ?? "").split("\n")[0]))),
    h("h2", {}, "Routes"), ...routes.map(route),
    h("h2", {}, "Forms"), ...Object.entries(document.components?.schemas ?? {}).map(form));
  if (location.hash) byId(location.hash.slice(1))?.scrollIntoView();
}

try {
  const answer = await fetch("/openapi.json", { credentials: "omit", redirect: "error" });
  if (!answer.ok) throw new Error(`/openapi.json answers ${answer.status}`);
  draw(await answer.json());
} catch (error) {
  byId("reference").replaceChildren(message("error", "There is no reference", String(error)));
}

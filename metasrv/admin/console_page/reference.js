// The API's reference, made from this node's own description: routes by area with parameters, answers and examples. It only
// reads; to try a route there are curl and metactl.

import { getJson, useToken } from "./api.js";
import { byId, delegate, element } from "./dom.js";
import { markdown } from "./markdown.js";
import { exampleOf, fieldsOf, typeOf } from "./schema_text.js";
import { applyTheme, nextTheme } from "./theme.js";
import { showTokenForm, watchTokenForm } from "./token_form.js";

const METHODS = ["get", "post", "put", "patch", "delete"];

async function load() {
  try {
    const description = await getJson("/openapi.json");
    showTokenForm(false);
    show(description);
  } catch (error) {
    showTokenForm(error.status === 401, error.message);
    const text = error.status === 401 ? "" : `The description cannot be loaded: ${error.message}`;
    byId("routes").replaceChildren(element("p", { class: "failed", role: "status" }, text));
  }
}

function show(description) {
  const areas = areasOf(description);
  byId("contents").replaceChildren(
    ...[...areas].flatMap(([area, routes]) => [element("h2", {}, area), ...routes.map((route) => entry(route))]),
  );
  const { title, version, description: about } = description.info;
  byId("routes").replaceChildren(
    element("h1", {}, title),
    element("p", { class: "quiet" }, `Version ${version}`),
    ...text(about),
    ...[...areas].flatMap(([area, routes]) => [element("h2", {}, area), ...routes.map((one) => card(one, description))]),
  );
  if (location.hash) byId(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
}

/** Routes by their tag; the methods of a path that mean the same stand together. */
function areasOf({ paths }) {
  const areas = new Map();
  for (const [path, item] of Object.entries(paths)) {
    const same = new Map();
    for (const method of METHODS.filter((name) => item[name])) {
      const key = (item[method].description ?? "") + (item[method].summary ?? "");
      if (!same.has(key)) same.set(key, { path, methods: [], operation: item[method], shared: item.parameters ?? [] });
      same.get(key).methods.push(method);
    }
    for (const route of same.values()) {
      const area = route.operation.tags?.[0] ?? "other";
      areas.set(area, [...(areas.get(area) ?? []), route]);
    }
  }
  return areas;
}

function idOf({ path, methods }) {
  return `${methods[0]}${path}`;
}

function badges(methods) {
  return methods.map((method) => element("span", { class: `method ${method}` }, method.toUpperCase()));
}

function entry(route) {
  return element("a", { href: `#${encodeURIComponent(idOf(route))}` }, badges(route.methods.slice(0, 1)), route.path);
}

function card(route, description) {
  const { operation, path, methods } = route;
  const parameters = [...route.shared, ...(operation.parameters ?? [])];
  const body = operation.requestBody?.content ?? {};
  return element(
    "article",
    { class: "card route", id: idOf(route) },
    element("h3", {}, badges(methods), path, operation.deprecated ? element("span", { class: "tag" }, "former name") : null),
    text(operation.description ?? operation.summary ?? ""),
    parameters.length ? parametersTable(parameters, description) : null,
    Object.entries(body).map(([type, { schema }]) => element("div", {}, element("h4", {}, `Body, ${type}`), example(schema, description))),
    answersTable(operation.responses ?? {}, description),
    Object.entries(operation.responses?.[200]?.content ?? {}).map(([type, content]) => answer(type, content, description)),
  );
}

function text(source) {
  return markdown(source, (label) => label);
}

function parametersTable(parameters, description) {
  const rows = parameters.map(({ name, in: place, required, schema = {}, description: meaning = "" }) =>
    element(
      "tr",
      {},
      element("td", {}, element("code", {}, name)),
      element("td", {}, `${place}${required ? ", required" : ""}`),
      element("td", {}, typeOf(schema, description), schema.default === undefined ? null : `, otherwise ${schema.default}`),
      element("td", {}, text(meaning)),
    ),
  );
  return table("Parameters", ["Name", "In", "Values", "Meaning"], rows);
}

function answersTable(responses, description) {
  const shared = description.components?.responses ?? {};
  const known = Object.entries(responses).map(([code, given]) => [code, given.$ref ? shared[given.$ref.split("/").pop()] : given]);
  const rows = known.map(([code, { description: meaning, content } = {}]) =>
    element(
      "tr",
      {},
      element("td", {}, element("code", {}, code)),
      element("td", {}, text(meaning ?? "")),
      element("td", { class: "quiet" }, Object.keys(content ?? {}).join(", ")),
    ),
  );
  return table("Answers", ["Code", "Meaning", "Form"], rows);
}

function table(title, titles, rows) {
  const head = element("tr", {}, titles.map((name) => element("th", { scope: "col" }, name)));
  const made = element("table", {}, element("thead", {}, head), element("tbody", {}, rows));
  return element("div", {}, element("h4", {}, title), element("div", { class: "scroll" }, made));
}

/** What 200 looks like, where it is JSON with a shape. */
function answer(type, { schema, example: given }, description) {
  if (!type.includes("json") || (given === undefined && !hasShape(schema, description))) return null;
  const fields = fieldsOf(schema ?? {}, description);
  const rows = fields.map(({ name, type: values, meaning }) =>
    element("tr", {}, element("td", {}, element("code", {}, name)), element("td", {}, values), element("td", {}, text(meaning))),
  );
  return element(
    "details",
    {},
    element("summary", {}, "Shape and example of the answer"),
    fields.length ? table("Fields", ["Name", "Values", "Meaning"], rows) : null,
    example(schema, description, given),
  );
}

function hasShape(schema, description) {
  return schema !== undefined && typeOf(schema, description) !== "any";
}

function example(schema, description, given) {
  const value = given ?? exampleOf(schema ?? {}, description);
  return element("pre", { tabindex: 0 }, JSON.stringify(value, null, 2));
}

delegate("click", {
  theme: nextTheme,
  forget: () => {
    useToken("");
    location.reload();
  },
});
applyTheme();
watchTokenForm(load);
load();

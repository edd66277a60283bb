// JSON schemas of an OpenAPI document as short words and as an example of an answer. Pure.

const DEPTH_MAX = 6;

/** The schema that a reference points to, in the same document. */
export function resolved(schema, description) {
  const path = /^#\/(.+)$/.exec(schema?.$ref ?? "")?.[1];
  return path ? path.split("/").reduce((part, name) => part?.[name], description) ?? {} : schema ?? {};
}

/** `integer, 1 to 300`, `one of a, b`, `list of NodeSchema`. */
export function typeOf(schema, description) {
  const found = resolved(schema, description);
  if (found.enum) return `one of ${found.enum.join(", ")}`;
  if (found.const !== undefined) return JSON.stringify(found.const);
  const choices = found.anyOf ?? found.oneOf;
  if (choices) return choices.map((choice) => typeOf(choice, description)).join(" or ");
  if (found.type === "array") return `list of ${typeOf(found.items ?? {}, description)}`;
  if (found.type === "object" && found.additionalProperties) return `map to ${typeOf(found.additionalProperties, description)}`;
  const { minimum, maximum } = found;
  const range = minimum !== undefined && maximum !== undefined ? `, ${minimum} to ${maximum}` : "";
  return `${found.type ?? "any"}${range}`;
}

/** A value that fits the schema: the given example or default, otherwise one by its type. */
export function exampleOf(schema, description, depth = 0) {
  const found = resolved(schema, description);
  if (found.example !== undefined) return found.example;
  if (found.examples?.length) return found.examples[0];
  if (found.default !== undefined) return found.default;
  if (found.const !== undefined) return found.const;
  if (found.enum) return found.enum[0];
  const choices = found.anyOf ?? found.oneOf;
  if (choices) return exampleOf(choices[0], description, depth);
  if (found.type === "array") return depth < DEPTH_MAX ? [exampleOf(found.items ?? {}, description, depth + 1)] : [];
  if (found.type === "object") return exampleObject(found, description, depth);
  return { integer: 1, number: 0.5, boolean: true, string: "text", null: null }[found.type] ?? null;
}

function exampleObject(schema, description, depth) {
  if (depth >= DEPTH_MAX) return {};
  const properties = Object.entries(schema.properties ?? {});
  const made = properties.map(([name, property]) => [name, exampleOf(property, description, depth + 1)]);
  if (!made.length && typeof schema.additionalProperties === "object") {
    made.push(["name", exampleOf(schema.additionalProperties, description, depth + 1)]);
  }
  return Object.fromEntries(made);
}

/** The fields of an object, or of the objects in a list, with their types and meanings. */
export function fieldsOf(schema, description) {
  const found = resolved(schema, description);
  const inner = found.type === "array" ? resolved(found.items, description) : found;
  return Object.entries(inner.properties ?? {}).map(([name, property]) => ({
    name,
    type: typeOf(property, description),
    meaning: property.description ?? "",
  }));
}

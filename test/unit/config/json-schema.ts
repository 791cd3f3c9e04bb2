/** As much of JSON Schema (draft 7) as the schema of a config uses; an unknown keyword fails. */
type Schema = Record<string, unknown>;

const annotations = ['$schema', 'description', 'default'];

/** What is wrong with `value`, a line each. */
export function violations(schema: Schema, value: unknown, path = 'config'): string[] {
  return Object.entries(schema).flatMap(([keyword, says]) => {
    if (annotations.includes(keyword)) return [];
    const check = keywords[keyword];
    if (!check) return [`${path}: unknown keyword ${keyword}`];
    return check(says as never, value, { path, schema });
  });
}

type Check = (says: never, value: unknown, at: { path: string; schema: Schema }) => string[];
const fails = (bad: boolean, text: string) => (bad ? [text] : []);
const isObject = (value: unknown): value is Schema =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function typeOf(value: unknown): string {
  if (value === null) return 'null';
  return Array.isArray(value) ? 'array' : typeof value;
}

const keywords: Record<string, Check> = {
  type: (type: string, value, { path }) =>
    fails(
      type === 'integer' ? !Number.isInteger(value) : typeOf(value) !== type,
      `${path} is no ${type}`,
    ),
  const: (wanted: unknown, value, { path }) => fails(value !== wanted, `${path} is not ${wanted}`),
  enum: (choices: unknown[], value, { path }) =>
    fails(!choices.includes(value), `${path} is none of ${choices}`),
  anyOf: (kinds: Schema[], value, { path }) => {
    const problems = kinds.map((kind) => violations(kind, value, path));
    return problems.some(({ length }) => length === 0)
      ? []
      : problems.sort((a, b) => a.length - b.length)[0]!;
  },
  properties: (parts: Record<string, Schema>, value, { path }) =>
    isObject(value)
      ? Object.entries(parts).flatMap(([key, part]) =>
          Object.hasOwn(value, key) ? violations(part, value[key], `${path}.${key}`) : [],
        )
      : [],
  additionalProperties: (allowed: boolean, value, { path, schema }) =>
    isObject(value) && !allowed
      ? Object.keys(value).flatMap((key) =>
          fails(!Object.hasOwn(schema.properties as Schema, key), `${path}.${key} is unknown`),
        )
      : [],
  items: (items: Schema | Schema[], value, { path }) =>
    Array.isArray(value)
      ? value.flatMap((entry, i) => {
          const item = Array.isArray(items) ? items[i] : items;
          return item ? violations(item, entry, `${path}.${i}`) : [];
        })
      : [],
  additionalItems: (_: boolean) => [],
  minItems: (n: number, value, { path }) =>
    fails(Array.isArray(value) && value.length < n, `${path} is too short`),
  maxItems: (n: number, value, { path }) =>
    fails(Array.isArray(value) && value.length > n, `${path} is too long`),
  minLength: (n: number, value, { path }) =>
    fails(typeof value === 'string' && value.length < n, `${path} is too short`),
  pattern: (text: string, value, { path }) =>
    fails(typeof value === 'string' && !new RegExp(text).test(value), `${path} does not match`),
  minimum: (low: number, value, { path }) => fails(Number(value) < low, `${path} is too small`),
  maximum: (high: number, value, { path }) => fails(Number(value) > high, `${path} is too large`),
  exclusiveMinimum: (low: number, value, { path }) =>
    fails(Number(value) <= low, `${path} is too small`),
  exclusiveMaximum: (high: number, value, { path }) =>
    fails(Number(value) >= high, `${path} is too large`),
  multipleOf: (n: number, value, { path }) => fails(Number(value) % n !== 0, `${path} is odd`),
};

/** What the schema found wrong, in words: where, which option, what was expected, what came. */
import { z } from 'zod';
import { nearestName } from '../errors.js';
import { concernedBy } from './across.js';
import { isMapping } from './merge.js';
import { at, type Path, show } from './path.js';

type Issue = z.core.$ZodIssue;

/** Says where the option was written; of several, the one that was written last. */
export type Locate = (...paths: Path[]) => string;

/** One line per problem. */
export function describeIssues(
  issues: readonly Issue[],
  schema: z.ZodType,
  value: unknown,
  locate: Locate,
): string[] {
  return issues.flatMap((issue) => {
    const path = issue.path as Path;
    const concerned = concernedBy(issue);
    if (concerned)
      return concerned.some((option) => isWrongByItself(option, issues))
        ? []
        : [`${locate(...concerned)}: ${nameOf(path)} ${issue.message}`];
    const inner = likeliest(issue);
    if (inner) return describeIssues(inner, schema, value, locate);
    if (issue.code === 'unrecognized_keys') {
      const known = keysAt(schema, path, value);
      if (path.length === 0) known.push('extends');
      return issue.keys.map((key) => {
        if (path.length === 0 && key === 'extends')
          return `${locate([key])}: extends: can only be given in a config file`;
        const near = nearestName(key, known);
        const hint = near ? `nearest is ${near}` : `known are ${known.join(', ')}`;
        return `${locate([...path, key])}: ${nameOf([...path, key])}: unknown key; ${hint}`;
      });
    }
    const received = at(value, path);
    const text = `${locate(path)}: ${nameOf(path)} ${expectation(issue, received)}`;
    return [`${text}, got ${received === undefined ? 'nothing' : show(received)}`];
  });
}

function isWrongByItself(option: Path, issues: readonly Issue[]): boolean {
  return issues.some(
    (issue) =>
      !concernedBy(issue) &&
      issue.path.length <= option.length &&
      issue.path.every((key, i) => key === option[i]),
  );
}

/** Of a union without a kind: the issues of the option that has the fewest, with their whole path. */
function likeliest(issue: Issue): Issue[] | undefined {
  if (issue.code !== 'invalid_union') return undefined;
  const weight = (issues: readonly Issue[]) =>
    issues.reduce((sum, i) => sum + (i.code === 'unrecognized_keys' ? i.keys.length : 1), 0);
  const [best] = [...issue.errors].sort((a, b) => weight(a) - weight(b));
  return best?.map((inner) => ({ ...inner, path: [...issue.path, ...inner.path] }) as Issue);
}

function nameOf(path: Path): string {
  return path.length ? path.join('.') : 'the config';
}

function expectation(issue: Issue, received: unknown): string {
  switch (issue.code) {
    case 'invalid_type':
      return `must be ${typeNames[issue.expected] ?? issue.expected}`;
    case 'invalid_value':
      return choice(issue.values.map(String), received);
    case 'invalid_union': {
      const { options } = issue as { options?: unknown };
      return Array.isArray(options)
        ? choice(options.filter((o) => o !== undefined).map(String), received)
        : 'must be a known kind';
    }
    case 'too_small':
      return `must ${amount(issue.origin, issue.inclusive ? '>=' : '>', Number(issue.minimum))}`;
    case 'too_big':
      return `must ${amount(issue.origin, issue.inclusive ? '<=' : '<', Number(issue.maximum))}`;
    case 'not_multiple_of':
      return `must be a multiple of ${issue.divisor}`;
    default:
      return issue.message;
  }
}

function choice(values: readonly string[], received: unknown): string {
  const near = typeof received === 'string' ? nearestName(received, values) : undefined;
  const list = values.length === 1 ? values[0] : `one of ${values.join(', ')}`;
  return `must be ${list}${near ? ` (nearest is ${near})` : ''}`;
}

const typeNames: Record<string, string> = {
  number: 'a number',
  int: 'an integer',
  string: 'a string',
  boolean: 'true or false',
  array: 'a list',
  tuple: 'a list',
  object: 'a mapping',
};

function amount(origin: string, relation: string, limit: number): string {
  if (origin === 'array' || origin === 'tuple') {
    const word = relation.startsWith('>') ? 'at least' : 'at most';
    return `hold ${word} ${limit} ${limit === 1 ? 'entry' : 'entries'}`;
  }
  if (origin === 'string') return `have a length ${relation} ${limit}`;
  return `be ${relation} ${limit}`;
}

/** The keys that the schema knows at `path`; of a union, those of the kind that `value` names. */
export function keysAt(schema: z.ZodType, path: Path, value: unknown): string[] {
  const inner = unwrap(schema, value);
  const [key, ...rest] = path;
  if (key === undefined) return inner instanceof z.ZodObject ? Object.keys(inner.shape) : [];
  const child = isMapping(value) || Array.isArray(value) ? (value as never)[key] : undefined;
  if (inner instanceof z.ZodObject) {
    const next = inner.shape[key as string] as z.ZodType | undefined;
    return next ? keysAt(next, rest, child) : [];
  }
  if (inner instanceof z.ZodArray) return keysAt(inner.element as z.ZodType, rest, child);
  return [];
}

function unwrap(schema: z.ZodType, value: unknown): z.ZodType {
  let inner = schema;
  for (;;) {
    if (
      inner instanceof z.ZodDefault ||
      inner instanceof z.ZodPrefault ||
      inner instanceof z.ZodNullable ||
      inner instanceof z.ZodOptional
    )
      inner = inner.unwrap() as z.ZodType;
    else if (inner instanceof z.ZodPipe) inner = inner.in as z.ZodType;
    else if (inner instanceof z.ZodDiscriminatedUnion) {
      const options = inner.options as z.ZodType[];
      const fits = options.find((option) => discriminates(option, value));
      if (!fits) return inner;
      inner = fits;
    } else if (inner instanceof z.ZodUnion) {
      const options = inner.options as z.ZodType[];
      inner = options.find((option) => shares(option, value)) ?? options[0]!;
    } else return inner;
  }
}

/** The mapping has an option of this kind. */
function shares(option: z.ZodType, value: unknown): boolean {
  if (!(option instanceof z.ZodObject) || !isMapping(value)) return false;
  return Object.keys(value).some((key) => Object.hasOwn(option.shape, key));
}

function discriminates(option: z.ZodType, value: unknown): boolean {
  if (!(option instanceof z.ZodObject) || !isMapping(value)) return false;
  return ['type', 'format'].some((key) => {
    const literal = option.shape[key] as z.ZodType | undefined;
    return literal?.safeParse(value[key]).success ?? false;
  });
}

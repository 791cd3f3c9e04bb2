/** Where an option is in a config, and what is there. */

export type Path = readonly (string | number)[];

export function at(value: unknown, path: Path): unknown {
  let inner = value;
  for (const key of path) {
    if (typeof inner !== 'object' || inner === null || !Object.hasOwn(inner, key)) return undefined;
    inner = (inner as Record<string | number, unknown>)[key];
  }
  return inner;
}

/** As YAML would write it, cut short. */
export function show(value: unknown): string {
  let text: string;
  try {
    text = typeof value === 'number' ? String(value) : (JSON.stringify(value) ?? String(value));
  } catch {
    return 'something that contains itself';
  }
  return text.length > 60 ? `${text.slice(0, 57)}…` : text;
}

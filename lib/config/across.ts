/** Checks that compare options with each other. */
import type { z } from 'zod';
import { at, type Path, show } from './path.js';

export interface Across {
  /** Of the option that is named first, from the place of the check. */
  depth: number;
  /** What it is compared with, from there, too. */
  others: readonly Path[];
}

/**
 * For a refinement of a section: the option at `path` is wrong for what `others` have. The problem is
 * shown where one of them was written last, and not at all when one of them is wrong by itself.
 * @param expected of the section with its defaults: what the option must be, with the others' values
 */
export function across<Section extends object>(
  path: readonly string[],
  others: readonly (readonly string[])[],
  expected: (section: Section) => string,
) {
  const params: { across: Across } = { across: { depth: path.length, others } };
  return {
    path: [...path],
    params,
    error: ({ input }: { input?: unknown }) => {
      const received = at(input, path);
      const text = expected(input as Section);
      return received === null ? text : `${text}, got ${show(received)}`;
    },
  };
}

/** All options, by their whole paths, that a problem concerns; undefined for one of a single option. */
export function concernedBy(issue: z.core.$ZodIssue): Path[] | undefined {
  if (issue.code !== 'custom') return undefined;
  const params = issue.params?.across as Across | undefined;
  if (!params) return undefined;
  const path = issue.path as Path;
  const place = path.slice(0, path.length - params.depth);
  return [path, ...params.others.map((other) => [...place, ...other])];
}

import { didYouMean, MixplError } from '../errors.js';

/**
 * What a reader does with a problem. All four count and report it.
 * - `refuse`: throws, after reading everything, naming the first few
 * - `skip`: leaves out the image or annotation
 * - `keep`: uses it as it is
 * - `repair`: takes the truth from the image file
 */
export type ProblemAction = 'refuse' | 'skip' | 'keep' | 'repair';

interface ProblemRule {
  /** What is counted, in the plural. */
  readonly what: string;
  /** The first is the default. */
  readonly actions: readonly [ProblemAction, ...ProblemAction[]];
  /** What training cannot use and metrics count all the same: an evaluation keeps it where training skips. */
  readonly evaluated?: true;
}

/**
 * What a data set is read for. COCO's tools count every annotation of a file; training leaves out what
 * problemRules skip.
 */
export type DatasetPurpose = 'training' | 'evaluation';

/**
 * Every kind of problem with its allowed actions, the default first. Defaults follow the reference
 * (mmdetection) for boxes: what it filters is skipped, what it keeps is kept. Where a file
 * contradicts itself the default refuses instead.
 */
export const problemRules = {
  'missing-image': { what: 'images whose file does not exist', actions: ['refuse', 'skip'] },
  'unreadable-image': {
    what: 'image files, or folders of them, that cannot be read',
    actions: ['refuse', 'skip'],
  },
  'invalid-image': { what: 'image entries that cannot be used', actions: ['refuse', 'skip'] },
  'duplicate-image-id': {
    what: 'image ids that occur more than once',
    actions: ['refuse', 'skip'],
  },
  'duplicate-file-name': {
    what: 'images that share their file with another image',
    actions: ['keep', 'refuse', 'skip'],
  },
  'invalid-image-size': {
    what: 'image sizes that are not positive integers',
    actions: ['repair', 'refuse', 'skip'],
  },
  'size-mismatch': {
    what: 'annotated images whose file has another size than recorded (repair: the file is right, boxes are in its pixels)',
    actions: ['keep', 'refuse', 'skip', 'repair'],
  },
  'missing-annotation': {
    what: 'images whose annotation file does not exist',
    actions: ['refuse', 'skip'],
  },
  'invalid-annotation': { what: 'annotations that cannot be used', actions: ['refuse', 'skip'] },
  'duplicate-annotation-id': {
    what: 'annotation ids that occur more than once',
    actions: ['refuse', 'skip', 'keep'],
  },
  'unknown-image': {
    what: 'annotations of images that are not listed',
    actions: ['refuse', 'skip'],
  },
  'unknown-category': {
    what: 'annotations of categories that are not listed',
    actions: ['refuse', 'skip'],
  },
  'ignored-annotation': {
    what: 'annotations with an ignore flag',
    actions: ['skip', 'refuse'],
    evaluated: true,
  },
  'box-not-finite': { what: 'boxes with NaN or infinity', actions: ['refuse', 'skip'] },
  'box-huge': {
    what: 'boxes more than 4 times as wide or high as their image',
    actions: ['refuse', 'skip', 'keep'],
  },
  'box-reversed': {
    what: 'boxes of negative width or height',
    actions: ['skip', 'refuse'],
    evaluated: true,
  },
  'box-zero-size': {
    what: 'boxes less than a pixel wide or high',
    actions: ['skip', 'refuse'],
    evaluated: true,
  },
  'box-outside': {
    what: 'boxes wholly outside their image',
    actions: ['skip', 'refuse'],
    evaluated: true,
  },
  'box-corners': {
    what: 'files whose boxes look like [x1, y1, x2, y2]',
    actions: ['refuse', 'keep'],
  },
  'box-partly-outside': {
    what: 'boxes that reach outside their image',
    actions: ['keep', 'refuse', 'skip'],
  },
  'area-not-positive': {
    what: 'annotations whose area is zero or less',
    actions: ['skip', 'refuse', 'keep'],
    evaluated: true,
  },
} as const satisfies Record<string, ProblemRule>;

/** What can be wrong with a data set: a key of problemRules. */
export type ProblemKind = keyof typeof problemRules;

/** What to do per kind; kinds left out have the default of problemRules. */
export type ProblemPolicy = { readonly [K in ProblemKind]?: ProblemAction };

/** One problem, where it is and what it is. */
export interface DatasetProblem {
  readonly kind: ProblemKind;
  readonly file: string;
  /** 1-based line in `file`, where that is known. */
  readonly line?: number | undefined;
  /** Id of the image or annotation. */
  readonly id?: number | string;
  /** What was expected, and what came. */
  readonly message: string;
}

/** All problems of a kind: the whole count, the first few as examples. */
export interface ProblemSummary {
  readonly kind: ProblemKind;
  readonly action: ProblemAction;
  readonly count: number;
  readonly examples: readonly DatasetProblem[];
}

/** What a reader found. */
export interface DatasetReport {
  /** The file or folder that was read. */
  readonly source: string;
  /** Images and annotations (crowds among them) that the data set holds. */
  readonly images: number;
  readonly annotations: number;
  readonly crowd: number;
  /** In the order of problemRules. */
  readonly problems: readonly ProblemSummary[];
}

/** A policy that refuses nothing that can be skipped: `mixpl data check` sees everything with it. */
export const lenientPolicy: ProblemPolicy = Object.fromEntries(
  (Object.entries(problemRules) as [ProblemKind, ProblemRule][]).map(([kind, { actions }]) => [
    kind,
    actions.find((action) => action !== 'refuse'),
  ]),
) as ProblemPolicy;

/** Who is told of problems. */
export interface ProblemOptions {
  /** Called for every problem as it is found: reports keep a few examples of each kind. */
  onProblem?: ((problem: DatasetProblem) => void) | undefined;
}

const maxExamples = 20;
const maxInMessage = 3;

/** Counts problems, keeps examples, and decides by policy. */
export class ProblemLog {
  readonly #operation: string;
  readonly #actions: Readonly<Record<ProblemKind, ProblemAction>>;
  readonly #found = new Map<ProblemKind, { count: number; examples: DatasetProblem[] }>();
  readonly #onProblem: ProblemOptions['onProblem'];

  /** @throws MixplError ERR_CONFIG for an unknown kind or an action that the kind does not have */
  constructor(
    operation: string,
    policy: ProblemPolicy = {},
    {
      purpose = 'training',
      onProblem,
    }: { purpose?: DatasetPurpose | undefined } & ProblemOptions = {},
  ) {
    this.#onProblem = onProblem;
    if (purpose !== 'training' && purpose !== 'evaluation')
      throw new MixplError(
        'ERR_CONFIG',
        `${operation}: purpose must be 'training' or 'evaluation', got '${purpose}'`,
      );
    this.#operation = operation;
    const kinds = Object.keys(problemRules) as ProblemKind[];
    for (const [kind, action] of Object.entries(policy)) {
      if (!(kind in problemRules)) {
        throw new MixplError(
          'ERR_CONFIG',
          `${operation}: policy must name kinds of problems (${kinds.join(', ')}), got '${kind}'${didYouMean(kind, kinds)}`,
        );
      }
      const allowed: readonly ProblemAction[] = problemRules[kind as ProblemKind].actions;
      if (action !== undefined && !allowed.includes(action))
        throw new MixplError(
          'ERR_CONFIG',
          `${operation}: policy['${kind}'] must be one of ${allowed.join(', ')}, got '${action}'`,
        );
    }
    this.#actions = Object.fromEntries(
      kinds.map((kind) => {
        const rule: ProblemRule = problemRules[kind];
        const action = policy[kind] ?? rule.actions[0];
        const counts = purpose === 'evaluation' && rule.evaluated && action === 'skip';
        return [kind, counts ? 'keep' : action];
      }),
    ) as Record<ProblemKind, ProblemAction>;
  }

  /** Counts the problem. @returns what to do with it; treat `refuse` as `skip`: finish() throws */
  add(problem: DatasetProblem): ProblemAction {
    let found = this.#found.get(problem.kind);
    if (!found) this.#found.set(problem.kind, (found = { count: 0, examples: [] }));
    found.count++;
    if (found.examples.length < maxExamples) found.examples.push(problem);
    this.#onProblem?.(problem);
    return this.#actions[problem.kind];
  }

  actionOf(kind: ProblemKind): ProblemAction {
    return this.#actions[kind];
  }

  summaries(): ProblemSummary[] {
    return (Object.keys(problemRules) as ProblemKind[]).flatMap((kind) => {
      const found = this.#found.get(kind);
      return found ? [{ kind, action: this.#actions[kind], ...found }] : [];
    });
  }

  /** @throws MixplError ERR_DATA (ERR_BAD_FILE when image files are all there is) if something is refused */
  refuse(source: string): void {
    const refused = this.summaries().filter(({ action }) => action === 'refuse');
    if (refused.length === 0) return;
    const lines = refused.map(({ kind, count, examples }) => {
      const shown = examples.slice(0, maxInMessage).map((problem) => `\n  ${describe(problem)}`);
      const more = count > shown.length ? `\n  … and ${count - shown.length} more` : '';
      return `${problemRules[kind].what} ('${kind}', ${count}):${shown.join('')}${more}`;
    });
    throw new MixplError(
      refused.every(({ kind }) => kind === 'unreadable-image') ? 'ERR_BAD_FILE' : 'ERR_DATA',
      `${this.#operation}: ${source} must be free of problems that the policy refuses, got ${lines.join('\n')}\n` +
        hintOf(refused.map(({ kind }) => kind)),
    );
  }
}

/** How to go on; for nearly all kinds that is to leave them out. */
function hintOf(kinds: readonly ProblemKind[], option = ''): string {
  const choices = kinds.map((kind) => {
    const actions: readonly ProblemAction[] = problemRules[kind].actions;
    return `${kind}=${actions.includes('skip') ? 'skip' : actions.find((action) => action !== 'refuse')}`;
  });
  return `try the policy ${choices.join(', ')} (--policy on the command line, data.policy in a config${option})`;
}

/** The options of loaders and trainings that stand for a policy. */
const optionOf = { 'unreadable-image': 'unreadable', 'size-mismatch': 'sizeMismatch' } as const;

/** The error of one image with the policy, and the option in code, that would leave such images out. */
export function withPolicyHint(problem: MixplError, kind: keyof typeof optionOf): MixplError {
  const hint = hintOf([kind], `, ${optionOf[kind]}: 'skip' in code`);
  return new MixplError(problem.code, `${problem.message}\n${hint}`, { cause: problem });
}

/** `file:line: (id) message`. */
export function describe(problem: DatasetProblem): string {
  const line = problem.line === undefined ? '' : `:${problem.line}`;
  const id = problem.id === undefined ? '' : `${problem.id}: `;
  return `${problem.file}${line}: ${id}${problem.message}`;
}

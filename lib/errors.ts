/** Stable codes of everything mixpl throws; match on these, not on messages. */
export type MixplErrorCode =
  | 'ERR_SHAPE'
  | 'ERR_DTYPE'
  | 'ERR_DEVICE'
  | 'ERR_RANGE'
  | 'ERR_CONFIG'
  | 'ERR_DATA'
  | 'ERR_BAD_FILE'
  | 'ERR_IO'
  | 'ERR_OUT_OF_MEMORY'
  | 'ERR_DISPOSED'
  | 'ERR_STATE'
  | 'ERR_DIVERGED'
  | 'ERR_CHECKPOINT'
  | 'ERR_PROCESS'
  | 'ERR_ADDON'
  | 'ERR_CUDA'
  | 'ERR_INTERNAL';

/** Every error that mixpl throws on purpose. The message says what was expected, what came, and where. */
export class MixplError extends Error {
  /** Stable: what to branch on. */
  readonly code: MixplErrorCode;

  /** For detectors and policies of your own. @param message `where: what must be …, got …` */
  constructor(code: MixplErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'MixplError';
    this.code = code;
  }
}

/** For the end of a message that refuses `word`: the nearest entry of `candidates` as a question, or nothing. */
export function didYouMean(word: string, candidates: Iterable<string>): string {
  const near = nearestName(word, candidates);
  return near === undefined ? '' : `; did you mean '${near}'?`;
}

/** The entry of `candidates` nearest to `word` by edit distance, or undefined when none is near. */
export function nearestName(word: string, candidates: Iterable<string>): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.max(2, Math.floor(word.length / 2)) + 1;
  for (const candidate of candidates) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance) {
      bestDistance = distance;
      best = candidate;
    }
  }
  return best;
}

function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const current = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitution = previous[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      current.push(Math.min(previous[j]! + 1, current[j - 1]! + 1, substitution));
    }
    previous = current;
  }
  return previous[b.length]!;
}

/** Numbers on the command line. commander puts the option and what came in front of these words. */
import { InvalidArgumentError } from 'commander';

/** @param high included; absent: any */
export function wholeNumber(low: number, high?: number): (text: string) => number {
  const expected = high === undefined ? `>= ${low}` : `in [${low}, ${high}]`;
  return (text) => {
    const value = numberOf(text);
    if (!Number.isSafeInteger(value) || value < low || value > (high ?? value))
      throw new InvalidArgumentError(`It must be a whole number ${expected}.`);
    return value;
  };
}

/** Of [0, high], or of (0, high]. */
export function numberUpTo(high: number, from: '[0' | '(0' = '[0'): (text: string) => number {
  return (text) => {
    const value = numberOf(text);
    if (!(value >= 0 && value <= high) || (from === '(0' && value === 0))
      throw new InvalidArgumentError(`It must be a number in ${from}, ${high}].`);
    return value;
  };
}

function numberOf(text: string): number {
  return text.trim() === '' ? Number.NaN : Number(text);
}

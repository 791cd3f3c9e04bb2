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

/** Of [low, high]. */
export function numberIn(low: number, high: number): (text: string) => number {
  return (text) => {
    const value = numberOf(text);
    if (!(value >= low && value <= high))
      throw new InvalidArgumentError(`It must be a number in [${low}, ${high}].`);
    return value;
  };
}

function numberOf(text: string): number {
  return text.trim() === '' ? Number.NaN : Number(text);
}

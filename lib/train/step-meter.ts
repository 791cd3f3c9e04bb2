import type { StepReport } from '../semi/index.js';
import { perImage, sumReports } from '../semi/pseudo-labels.js';

/** Steps that the speed is taken over. */
const window = 20;

/** Speed over the last steps, and means for a line of metrics.jsonl. */
export class StepMeter {
  readonly #recent: { seconds: number; images: number }[] = [];
  #since: (StepReport & { seconds: number; dataSeconds: number; lr: number })[] = [];

  add(step: StepReport & { seconds: number; dataSeconds: number; lr: number; images: number }): {
    imagesPerSecond: number;
    secondsPerStep: number;
  } {
    this.#recent.push({ seconds: step.seconds, images: step.images });
    if (this.#recent.length > window) this.#recent.shift();
    this.#since.push(step);
    const seconds = this.#recent.reduce((sum, s) => sum + s.seconds, 0);
    const images = this.#recent.reduce((sum, s) => sum + s.images, 0);
    return {
      imagesPerSecond: seconds > 0 ? images / seconds : 0,
      secondsPerStep: seconds / this.#recent.length,
    };
  }

  /** Means since the last call; classes by name. */
  take(classNames: readonly string[]): Record<string, unknown> {
    const steps = this.#since;
    this.#since = [];
    const last = steps.at(-1);
    if (!last) return {};
    const pseudo = sumReports(steps.flatMap((s) => s.pseudo ?? []));
    return {
      steps: steps.length,
      lr: last.lr,
      total: meanOf(steps.map((s) => s.total)),
      losses: meansOf(steps.map((s) => s.losses)),
      gradNorm: meanOf(steps.map((s) => s.gradNorm)),
      emaMomentum: steps.findLast((s) => s.emaMomentum !== null)?.emaMomentum ?? null,
      silenced: meansOf(
        steps.map((s) => s.silenced),
        steps.length,
      ),
      pseudo: pseudo && perImage(pseudo, classNames),
      seconds: meanOf(steps.map((s) => s.seconds)),
      dataSeconds: meanOf(steps.map((s) => s.dataSeconds)),
    };
  }
}

function meanOf(values: readonly number[]): number {
  return values.reduce((sum, v) => sum + v, 0) / values.length;
}

/** Mean by name; `count` defaults to how often the name occurs. */
function meansOf(
  records: readonly Record<string, number>[],
  count?: number,
): Record<string, number> {
  const values = new Map<string, number[]>();
  for (const record of records)
    for (const [name, value] of Object.entries(record)) {
      const list = values.get(name);
      if (list) list.push(value);
      else values.set(name, [value]);
    }
  return Object.fromEntries(
    [...values].map(([name, list]) => [
      name,
      list.reduce((sum, v) => sum + v, 0) / (count ?? list.length),
    ]),
  );
}

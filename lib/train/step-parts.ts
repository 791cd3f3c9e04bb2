import { type LoadedBatch, loadBatches, type SamplerState } from '../data/index.js';
import { MixplError } from '../errors.js';
import type { ProcessGroup } from '../processes/index.js';
import { Random } from '../random.js';
import type { PreparedBatches, StepPart } from '../semi/index.js';
import type { TrainSettings } from './settings.js';
import type { TrainingSetup } from './setup.js';
import { type StepViews, ViewDrawer } from './step-views.js';
import type { TrainingWarning } from './watch.js';

/** What a part learns from. */
interface Drawn {
  loaded: LoadedBatch;
  views: StepViews;
  prepared?: PreparedBatches;
}

/**
 * Draws what a training learns from, one part after the other: a batch of the sampler is a part, its step
 * the number that random decisions fork from. A part is drawn, and its batches are made, when the device
 * has all of the part before to do; so are the first of an iteration before the update that it follows.
 */
export class PartDrawer {
  /** Images of the iteration that began last, and seconds that it waited for images. */
  images = 0;
  dataSeconds = 0;
  /** What the sampler goes on from after the last part; of several processes the last one's says it. */
  sampler: SamplerState;
  readonly #setup: TrainingSetup;
  readonly #teaches: (iteration: number) => boolean;
  readonly #random: Random;
  readonly #views: ViewDrawer;
  readonly #batches: AsyncGenerator<LoadedBatch, void, undefined>;
  /** The first of the next iteration, when it was drawn during the one before. */
  #next: Promise<Drawn> | null = null;

  constructor(
    setup: TrainingSetup,
    options: {
      /** Whether an iteration learns from unlabelled images. */
      teaches: (iteration: number) => boolean;
      /** Takes what the loader finds while it works ahead. */
      warn: (warning: TrainingWarning) => void;
    },
  ) {
    const { settings, sampler, images, datasets, truth } = setup;
    this.sampler = sampler.state();
    this.#setup = setup;
    this.#teaches = options.teaches;
    this.#random = new Random(settings.seed);
    this.#views = new ViewDrawer({
      options: settings.augment,
      random: this.#random.fork('views'),
      sampler,
      labelled: datasets[0]!,
      truth,
      images,
    });
    this.#batches = batchesOf(setup, options.warn);
  }

  /**
   * The parts of an iteration. Their end comes when the first of the next iteration is drawn, too.
   * @throws what cannot be drawn of the first part; the others throw when they are asked for
   */
  async begin(iteration: number): Promise<AsyncIterable<StepPart>> {
    this.images = 0;
    this.dataSeconds = 0;
    const first = await this.#timed(this.#next ?? this.#draw(iteration));
    this.#next = null;
    return this.#parts(iteration, first);
  }

  async *#parts(iteration: number, first: Drawn): AsyncGenerator<StepPart, void, undefined> {
    const count = this.#setup.loop.policies.length;
    for (let part = 0; part < count; part++) {
      const drawn = part === 0 ? first : await this.#timed(this.#drawPrepared(iteration));
      const { loaded, views, prepared } = drawn;
      this.images += views.labelled.length + views.unlabelled.length;
      this.sampler = loaded.batch.after;
      const { step } = loaded.batch;
      yield { ...views, prepared, number: step, random: this.#random.fork('mixing', step) };
    }
    await this.#timed(this.#drawAhead(iteration + 1));
  }

  async #timed<T>(wait: Promise<T>): Promise<T> {
    const start = performance.now();
    try {
      return await wait;
    } finally {
      this.dataSeconds += (performance.now() - start) / 1000;
    }
  }

  async #draw(iteration: number): Promise<Drawn> {
    const next = await this.#batches.next();
    if (next.done) throw new MixplError('ERR_INTERNAL', 'training: the loader ended');
    const teach = this.#teaches(iteration);
    return { loaded: next.value, views: await this.#views.draw(next.value, { teach }) };
  }

  async #drawPrepared(iteration: number): Promise<Drawn> {
    const drawn = await this.#draw(iteration);
    return { ...drawn, prepared: this.#setup.loop.prepare(drawn.views) };
  }

  /** What fails here is told by begin(). */
  async #drawAhead(iteration: number): Promise<void> {
    const { settings, options } = this.#setup;
    if (iteration >= settings.schedule.iterations || options.signal?.aborted) return;
    this.#next = this.#drawPrepared(iteration);
    await this.#next.catch(() => {});
  }

  async close(): Promise<void> {
    await (await this.#next?.catch(() => null))?.prepared?.dispose();
    await this.#batches.return();
  }
}

function batchesOf(
  { sampler, datasets, images, settings, options, ...setup }: TrainingSetup,
  warn: (warning: TrainingWarning) => void,
): AsyncGenerator<LoadedBatch, void, undefined> {
  return loadBatches(sampler, datasets, {
    cache: images,
    ahead: settings.loader.prefetch,
    ...(setup.processes ? { wanted: ownParts(settings, setup.processes) } : {}),
    unreadable: options.unreadable ?? 'refuse',
    sizeMismatch: options.sizeMismatch ?? 'refuse',
    onProblem: ({ file, message }, action) =>
      warn(
        action === 'skip'
          ? {
              code: 'unusable-image',
              message: `${file}: ${message}; another image is used in its place`,
            }
          : {
              code: 'size-mismatch',
              message:
                `${file}: ${message}; its boxes are used as they are, here and wherever sizes differ ` +
                "(`mixpl data check` lists them; data.policy.size-mismatch 'skip' leaves them out)",
            },
      ),
  });
}

/** A process has parts that follow each other. */
function ownParts(
  { batch: { accumulate } }: TrainSettings,
  { rank, processes }: ProcessGroup,
): (step: number) => boolean {
  return (step) => Math.floor(((step % accumulate) * processes) / accumulate) === rank;
}

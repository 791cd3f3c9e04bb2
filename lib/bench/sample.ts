/** What the clock runs for: one run, or several back to back where one is short. */
import { native } from '../native.js';

/** Runs that are queued before the host looks at the first: bounds what their results hold. */
const inFlight = 32;
/** A GPU's launch and synchronisation take some 0.02 ms, the CPU's thread switches less. */
const longEnoughMs = { gpu: 5, cpu: 1 };
const groupMs = 5;
const mostRuns = 1000;

/** Queues `runs` runs without waiting in between, then waits for the device once. @returns ms of one */
export async function sample(
  device: string,
  run: () => Promise<unknown>,
  runs: number,
): Promise<number> {
  const start = performance.now();
  const queued: Promise<unknown>[] = [];
  try {
    for (let i = 0; i < runs; i++) {
      const one = run();
      one.catch(() => undefined); // it is awaited, if later
      queued.push(one);
      if (queued.length === inFlight) await queued.shift();
    }
    await Promise.all(queued);
  } catch (error) {
    await Promise.allSettled(queued); // nothing comes after the end
    throw error;
  }
  await native.synchronize(device); // work may only be queued
  return (performance.now() - start) / runs;
}

/** How many runs make a sample of 5 ms, after no more looks than these; 1 where one is long enough by itself. */
export async function runsFor(
  device: string,
  sampleOf: (runs: number) => Promise<number>,
  looks = 4,
): Promise<number> {
  const enough = device === 'cpu' ? longEnoughMs.cpu : longEnoughMs.gpu;
  let runs = 1;
  let ms = await sampleOf(1);
  if (ms >= enough) return 1;
  // What is not the run itself weighs less the more there are: look again.
  for (let look = 0; look < looks && ms < groupMs && runs < mostRuns; look++) {
    runs = Math.min(mostRuns, Math.ceil((runs * 1.1 * groupMs) / ms));
    ms = runs * (await sampleOf(runs));
  }
  return runs;
}

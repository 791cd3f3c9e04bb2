/** Student and teacher of a checkpoint, and how its run shows images to them. */

import type { StudentViewChoices } from '../../analysis/index.js';
import type { ResolvedConfig } from '../../config/index.js';
import type { Category } from '../../data/index.js';
import type { Detector } from '../../detector/detector.js';
import type { Output } from '../output.js';
import { type RuntimeFlags, useRuntime } from '../runtime-options.js';

export interface Branches {
  /** Weights files. */
  files: { student: string; teacher: string };
  student: Detector;
  /** The student itself where there is one branch. */
  teacher: Detector;
  categories: readonly Category[];
  dispose(): void;
}

/** @throws MixplError as findWeights and openDetector do */
export async function openBranches(
  checkpoint: string,
  flags: RuntimeFlags,
  output: Output,
): Promise<Branches> {
  const { openDetector } = await import('../../detector/open.js');
  const { findWeights } = await import('../../train/weights-file.js');
  const found = await findWeights(checkpoint);
  const student = found.student ?? found.headline;
  const teacher = found.teacher ?? student;
  if (student === teacher)
    output.note(`${student}: has one branch only, which serves as student and as teacher`);
  const open = async (file: string) => {
    const { detector, categories, metadata } = await openDetector(file, await useRuntime(flags));
    // Which assignment TOOD learns by depends on it.
    const iteration = Number(metadata.iteration ?? 0);
    await detector.writeTensor('optimizer.iterations', Float32Array.of(iteration));
    return { detector, categories };
  };
  const { detector, categories } = await open(student);
  try {
    const other = student === teacher ? detector : (await open(teacher)).detector;
    return {
      ...{ files: { student, teacher }, student: detector, teacher: other, categories },
      dispose: () => {
        detector.dispose();
        other.dispose();
      },
    };
  } catch (error) {
    detector.dispose();
    throw error;
  }
}

/** How a run draws and mixes its views; the paper's way where there is no run. */
export function settingsOf(
  config: ResolvedConfig | null,
  output: Output,
): StudentViewChoices['settings'] {
  if (!config) {
    output.note(
      "views are made with the paper's settings: the checkpoint is not in the folder of a run, whose config would have others",
    );
    return undefined;
  }
  const { augment, semi, batch } = config;
  return { augment, semi, batch };
}

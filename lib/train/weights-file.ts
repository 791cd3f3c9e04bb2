import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { MixplError } from '../errors.js';
import { CheckpointStore } from './checkpoint.js';

/** The weights files that a path on the command line means, by what they hold. */
export interface WeightsFiles {
  /** What to use: the best of a run, else the newest teacher, else the newest student. */
  headline: string;
  /** Both branches of a checkpoint, where there is one. */
  student: string | null;
  teacher: string | null;
}

/**
 * @param path a weights file, a checkpoint folder (`iteration-N`) or the folder of a run
 * @throws MixplError ERR_IO when there are no weights
 */
export async function findWeights(path: string): Promise<WeightsFiles> {
  const found = await stat(path).catch((cause: NodeJS.ErrnoException) => {
    const reason = cause.code === 'ENOENT' ? 'nothing' : cause.message;
    throw new MixplError(
      'ERR_IO',
      `${path}: must be weights, a checkpoint or a run, got ${reason}`,
      {
        cause,
      },
    );
  });
  if (!found.isDirectory()) return { headline: path, student: null, teacher: null };
  const existing = async (file: string) =>
    stat(file).then(
      () => file,
      () => null,
    );
  const folder = (await new CheckpointStore(join(path, 'checkpoints')).list())[0] ?? path;
  const [best, teacher, student] = await Promise.all([
    existing(join(path, 'best.safetensors')),
    existing(join(folder, 'teacher.safetensors')),
    existing(join(folder, 'student.safetensors')),
  ]);
  const headline = best ?? teacher ?? student;
  if (!headline)
    throw new MixplError(
      'ERR_IO',
      `${path}: must hold best.safetensors, checkpoints or the files of one, got none of them`,
    );
  return { headline, student, teacher };
}

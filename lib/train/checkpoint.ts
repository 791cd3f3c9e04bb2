import { mkdir, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { SamplerState } from '../data/index.js';
import type { DetectorState } from '../detector/types.js';
import { MixplError } from '../errors.js';
import { ioError, syncFolder, writeFileWhole } from '../files.js';
import { readSafetensors, writeSafetensors } from '../safetensors.js';
import type { CachedRecipe } from '../semi/index.js';
import type { RunIdentity } from './identity.js';
import type { WatchState } from './watch.js';

/** Everything of a run except its weights; JSON. */
export interface TrainingState {
  /** Number of steps done. */
  iteration: number;
  identity: RunIdentity;
  sampler: SamplerState | null;
  /** By part of an iteration, each oldest first. */
  caches: CachedRecipe[][];
  best: { ap: number; iteration: number } | null;
  /** The validation due at this iteration was cut off. */
  validationDue: boolean;
  watch: WatchState;
  /** Where it ran; another place may give other bits. */
  environment: Record<string, string | number>;
}

/** A run as it was after an iteration. */
export interface Checkpoint {
  /** Its folder. */
  path: string;
  state: TrainingState;
  student: DetectorState;
  /** The teacher's weights; null without a teacher (supervised training). */
  teacher: DetectorState | null;
}

interface StateFile extends TrainingState {
  format: typeof formatName;
  version: number;
  /** Bytes of the files beside this one. */
  files: Record<string, number>;
}

const formatName = 'mixpl-checkpoint';
/** 1 had one `cache`: its runs knew no parts. */
const formatVersion = 2;
const studentFile = 'student.safetensors';
const teacherFile = 'teacher.safetensors';
const stateFile = 'state.json';
const folderPattern = /^iteration-(\d+)$/;
const unfinishedPattern = /^\.iteration-\d+\.\w+$/;

/**
 * The checkpoints of a run: a folder `iteration-N` each, holding student.safetensors (with optimizer
 * state), teacher.safetensors and state.json. A folder appears whole, by renaming, or not at all.
 */
export class CheckpointStore {
  readonly folder: string;
  readonly #metadata: Readonly<Record<string, string>>;

  /**
   * Looks at nothing yet.
   * @param folder where the checkpoints are or will be
   * @param metadata goes into every weights file
   */
  constructor(folder: string, metadata: Readonly<Record<string, string>> = {}) {
    this.folder = folder;
    this.#metadata = metadata;
  }

  /**
   * Writes a checkpoint, then removes the oldest beyond `keep`, and later ones: they are of a course that the run left
   * when it went on from an earlier one.
   * @returns its folder
   * @throws MixplError ERR_IO with path and reason; earlier checkpoints are still there
   */
  async save(checkpoint: Omit<Checkpoint, 'path'>, { keep }: { keep: number }): Promise<string> {
    const { state, student, teacher } = checkpoint;
    const name = `iteration-${String(state.iteration).padStart(6, '0')}`;
    const path = join(this.folder, name);
    const unfinished = join(this.folder, `.${name}.tmp`);
    const replaced = join(this.folder, `.${name}.old`);
    try {
      await mkdir(this.folder, { recursive: true });
      await this.#sweep();
      await mkdir(unfinished);
      const files: Record<string, number> = {};
      for (const [file, tensors] of [
        [studentFile, student],
        [teacherFile, teacher],
      ] as const) {
        if (!tensors) continue;
        await writeSafetensors(join(unfinished, file), tensors, {
          ...this.#metadata,
          iteration: String(state.iteration),
        });
        files[file] = (await stat(join(unfinished, file))).size;
      }
      const content: StateFile = { format: formatName, version: formatVersion, ...state, files };
      await writeFileWhole(join(unfinished, stateFile), [`${JSON.stringify(content)}\n`]);
      if (await exists(path)) await rename(path, replaced);
      await rename(unfinished, path);
      await syncFolder(this.folder);
      await rm(replaced, { recursive: true, force: true });
      await this.#prune(state.iteration, keep);
    } catch (cause) {
      await rm(unfinished, { recursive: true, force: true }).catch(() => undefined);
      if (!(await exists(path))) await rename(replaced, path).catch(() => undefined); // only where there was one
      if (cause instanceof MixplError) throw cause;
      throw ioError(path, 'must be a writable folder', cause);
    }
    return path;
  }

  /**
   * Folders of the checkpoints, the newest first; none for a run that has none.
   * @throws MixplError ERR_IO: what cannot be read is not for that reason empty
   */
  async list(): Promise<string[]> {
    const names = await readdir(this.folder).catch((cause) => {
      if (['ENOENT', 'ENOTDIR'].includes(cause.code)) return [];
      throw ioError(this.folder, 'must be a readable folder of checkpoints', cause);
    });
    return names
      .filter((name) => folderPattern.test(name))
      .sort((a, b) => iterationOf(b) - iterationOf(a))
      .map((name) => join(this.folder, name));
  }

  /** What a run that was killed while saving left behind. */
  async #sweep(): Promise<void> {
    for (const name of await readdir(this.folder)) {
      if (!unfinishedPattern.test(name)) continue;
      const path = join(this.folder, name);
      const original = join(this.folder, name.slice(1).replace(/\.\w+$/, ''));
      // Killed between the two renames: the old one is the only one.
      if (name.endsWith('.old') && !(await exists(original))) await rename(path, original);
      else await rm(path, { recursive: true, force: true });
    }
  }

  async #prune(iteration: number, keep: number): Promise<void> {
    const all = await this.list();
    const later = all.filter((path) => iterationOf(basename(path)) > iteration);
    for (const path of [...later, ...all.slice(later.length + keep)])
      await rm(path, { recursive: true, force: true });
  }
}

/**
 * Reads a checkpoint folder.
 * @throws MixplError ERR_IO (not there), ERR_BAD_FILE (cut off, no checkpoint), ERR_CHECKPOINT (of
 *   another format version)
 */
export async function readCheckpoint(path: string): Promise<Checkpoint> {
  const statePath = join(path, stateFile);
  const text = await readFile(statePath, 'utf8').catch((cause) => {
    throw ioError(statePath, 'must be a readable file (part of a checkpoint)', cause);
  });
  const state = parseState(statePath, text);
  for (const [file, bytes] of Object.entries(state.files)) {
    const size = await stat(join(path, file))
      .then((s) => s.size)
      .catch(() => null);
    if (size !== bytes)
      throw new MixplError(
        'ERR_BAD_FILE',
        `${join(path, file)}: must hold ${bytes} bytes (as ${stateFile} says), ` +
          (size === null ? 'got no file' : `got ${size}: cut off or replaced`),
      );
  }
  const read = async (file: string) => (await readSafetensors(join(path, file))).tensors;
  const { format: _, version: __, files, ...rest } = state;
  return {
    path,
    state: rest,
    student: await read(studentFile),
    teacher: teacherFile in files ? await read(teacherFile) : null,
  };
}

function parseState(path: string, text: string): StateFile {
  let state: Partial<StateFile> & { cache?: CachedRecipe[] };
  try {
    state = JSON.parse(text) as typeof state;
  } catch (cause) {
    throw new MixplError(
      'ERR_BAD_FILE',
      `${path}: must be JSON (is the file cut off?), got ${(cause as Error).message}`,
      { cause },
    );
  }
  if (state?.format !== formatName)
    throw new MixplError(
      'ERR_BAD_FILE',
      `${path}: format must be '${formatName}', got ${JSON.stringify(state?.format) ?? 'none'}`,
    );
  if (state.version !== formatVersion && state.version !== 1)
    throw new MixplError(
      'ERR_CHECKPOINT',
      `${path}: version must be 1 or ${formatVersion} (what this release reads), got ${state.version}`,
    );
  const { cache, ...rest } = state;
  const caches = state.version === 1 ? [cache] : state.caches;
  const whole = Number.isSafeInteger(state.iteration) && state.identity && state.files;
  if (!whole || !Array.isArray(caches) || !caches.every(Array.isArray) || !state.watch)
    throw new MixplError(
      'ERR_BAD_FILE',
      `${path}: must contain a whole training state, got parts of one`,
    );
  return { ...rest, caches } as StateFile;
}

function iterationOf(name: string): number {
  return Number(folderPattern.exec(name)![1]);
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

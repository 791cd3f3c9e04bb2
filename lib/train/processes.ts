/** What the processes of a training tell each other before it begins. */
import type { DetectorState, TeachableDetector } from '../detector/types.js';
import { MixplError } from '../errors.js';
import type { ProcessGroup } from '../processes/index.js';
import type { StoredTensor } from '../safetensors.js';
import type { Checkpoint } from './checkpoint.js';
import { differencesOf, type RunIdentity } from './identity.js';

/** Whether a process writes files. */
export function leads(processes: ProcessGroup | null): boolean {
  return !processes || processes.rank === 0;
}

/** @throws MixplError ERR_CONFIG when a process has another config or other data than rank 0 */
export async function checkSame(processes: ProcessGroup, own: RunIdentity): Promise<void> {
  const first = await processes.broadcast(own);
  const options = differencesOf(first.config, own.config).map(({ key }) => key);
  const data = Object.keys(own.data).filter((set) => own.data[set] !== first.data[set]);
  const different = [...options, ...data.map((set) => `data.${set}`)];
  if (different.length > 0)
    throw new MixplError(
      'ERR_CONFIG',
      `trainSemiSupervised: every process must have the config and the data of rank 0, got others at rank ${processes.rank}: ${different.join(', ')}`,
    );
}

/** The checkpoint of rank 0, if it goes on from one. */
export async function shareCheckpoint(
  processes: ProcessGroup,
  checkpoint: Checkpoint | null,
): Promise<Checkpoint | null> {
  const about = checkpoint && {
    path: checkpoint.path,
    state: checkpoint.state,
    teaches: checkpoint.teacher !== null,
  };
  const found = await processes.broadcast(about);
  if (!found) return null;
  return {
    ...{ path: found.path, state: found.state },
    student: await shareTensors(processes, checkpoint?.student),
    teacher: found.teaches ? await shareTensors(processes, checkpoint?.teacher ?? undefined) : null,
  };
}

/** A student gets the weights of rank 0's. */
export async function shareWeights(
  processes: ProcessGroup,
  student: TeachableDetector,
): Promise<void> {
  const own = processes.rank === 0 ? await student.state() : undefined;
  const weights = await shareTensors(processes, own);
  if (processes.rank > 0) await student.loadState(weights);
}

/** One after the other: a message has an end, and memory, too. @param own of rank 0 */
async function shareTensors(
  processes: ProcessGroup,
  own: DetectorState | undefined,
): Promise<DetectorState> {
  const names = await processes.broadcast(own ? [...own.keys()] : []);
  const tensors = new Map<string, StoredTensor>();
  for (const name of names) {
    const { shape, data } = await processes.broadcast(
      own?.get(name) ?? { shape: [], data: new Float32Array() },
    );
    tensors.set(name, { shape, data });
  }
  return own ?? tensors;
}

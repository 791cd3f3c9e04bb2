/** Several processes that train one detector. */
import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { MixplError } from '../errors.js';
import { type NativeCollective, native } from '../native.js';
import type { Channel } from './channel.js';
import { joinMeeting, Meeting, type ProcessPlace, splitAddress } from './meeting.js';

/** How a process joins the others. */
export interface JoinOptions extends ProcessPlace {
  /** Milliseconds to wait for the others. @defaultValue 300000 */
  timeoutMs?: number;
}

type Mode = 'all' | 'first' | 'from-first';
/** A value on its way to rank 0, and what rank 0 answers. */
type Message =
  | { type: 'give'; call: number; mode: Mode; value: unknown; stop: boolean }
  | { type: 'take'; call: number; value: unknown; stop: boolean }
  | { type: 'failed'; rank: number; message: string }
  | { type: 'leave' };

/** What rank 0 answers, or has of one call when all have given. */
interface Answer {
  value: unknown;
  stop: boolean;
}

/** What rank 0 has of one call so far. */
interface Gathering {
  mode: Mode;
  values: unknown[];
  stop: boolean;
  given: Set<number>;
}

/**
 * The processes of a training, of one machine or of several: each computes parts of every iteration on a device
 * of its own. Values go by way of rank 0; gradients from device to device, see collective().
 *
 * All processes make the same calls in the same order. A process that fails or goes ends them all: whatever
 * they wait for throws ERR_PROCESS.
 */
export class ProcessGroup implements AsyncDisposable {
  readonly rank: number;
  readonly processes: number;
  readonly #channels: ReadonlyMap<number, Channel>;
  readonly #gatherings = new Map<number, Gathering>();
  /** By call: answers that nobody waits for yet, and who waits for one. */
  readonly #answers = new Map<number, Answer>();
  readonly #waiting = new Map<
    number,
    { resolve: (answer: Answer) => void; reject: (error: Error) => void }
  >();
  /** Who said that it is done, and whose connection ended then. */
  readonly #left = new Set<number>();
  readonly #gone = new Set<number>();
  #local: { readonly rank: number; readonly processes: number };
  #calls = 0;
  #failure: MixplError | null = null;
  #signal: AbortSignal | null = null;
  #stopped = false;
  #collective: Promise<NativeCollective> | null = null;
  #closed = false;
  /** Ends what belongs to this process alone. */
  readonly #onClose: () => Promise<void>;

  private constructor(
    { rank, processes }: ProcessPlace,
    channels: ReadonlyMap<number, Channel>,
    onClose: () => Promise<void>,
  ) {
    this.rank = rank;
    this.processes = processes;
    this.#local = { rank, processes };
    this.#channels = channels;
    this.#onClose = onClose;
    for (const [peer, channel] of channels)
      channel.onMessage = (message) => this.#receive(peer, message as Message | null);
  }

  /**
   * Joins the others, who do the same; waits until all of them are there.
   * @param meeting of rank 0, if it listens already @internal
   * @throws MixplError ERR_CONFIG; ERR_STATE when they are not there in time
   */
  static async join(
    options: JoinOptions,
    {
      meeting,
      onClose = async () => {},
    }: { meeting?: Meeting; onClose?: () => Promise<void> } = {},
  ): Promise<ProcessGroup> {
    checkPlace(options);
    const { rank, timeoutMs = 300_000 } = options;
    const channels =
      rank === 0
        ? await (meeting ?? (await Meeting.open(options))).everybody(timeoutMs)
        : new Map([[0, await joinMeeting(options, timeoutMs)]]);
    const group = new ProcessGroup(options, channels, onClose);
    const machines = await group.allGather(machineId());
    const own = machines.flatMap((machine, r) => (machine === machines[rank] ? r : []));
    group.#local = { rank: own.indexOf(rank), processes: own.length };
    return group;
  }

  /** Its place among the processes of this machine. */
  get local(): { readonly rank: number; readonly processes: number } {
    return this.#local;
  }

  /** Everybody's value, by rank. Values are what structuredClone takes. @throws MixplError ERR_PROCESS */
  async allGather<T>(value: T): Promise<T[]> {
    return (await this.#call('all', value)) as T[];
  }
  /** At rank 0 everybody's value, by rank; null elsewhere. @throws MixplError ERR_PROCESS */
  async gather<T>(value: T): Promise<T[] | null> {
    return (await this.#call('first', value)) as T[] | null;
  }
  /** The value of rank 0. @param value is looked at there alone. @throws MixplError ERR_PROCESS */
  async broadcast<T>(value: T): Promise<T> {
    return (await this.#call('from-first', value)) as T;
  }

  /**
   * From the next allGather() on all processes know whether the signal of one of them was aborted. What stopped them
   * before is forgotten: a training begins with this, in all processes between the same two calls.
   * @param signal null: this process has no wish of its own
   */
  stopWith(signal: AbortSignal | null): void {
    this.#signal = signal;
    this.#stopped = false;
  }
  /** Whether a process wanted to stop, as of the last allGather() or stop(): the same in all of them. */
  get stopped(): boolean {
    return this.#stopped;
  }
  /** Where all processes have found out that there is nothing more to do. */
  stop(): void {
    this.#stopped = true;
  }

  /**
   * What sums over the devices of all processes, opened once: NCCL where each process has a GPU of its own and all
   * have the library (libnccl.so.2), else Gloo, through the host. The environment variable MIXPL_COLLECTIVE says
   * which, 'nccl' or 'gloo'.
   * @throws MixplError ERR_PROCESS; ERR_STATE saying what is missing
   * @internal
   */
  collective(device: string): Promise<NativeCollective> {
    this.#collective ??= this.#openCollective(device);
    return this.#collective;
  }

  async #openCollective(device: string): Promise<NativeCollective> {
    const asked = process.env.MIXPL_COLLECTIVE || null;
    const isReal = device.startsWith('cuda') && !native.setEmulation;
    const all = await this.allGather({
      asked,
      nccl: isReal && native.collectives().includes('nccl'),
      place: `${machineId()} ${device}`,
    });
    const kinds = new Set(all.map((one) => one.asked));
    if (kinds.size > 1 || (asked && asked !== 'nccl' && asked !== 'gloo'))
      throw new MixplError(
        'ERR_CONFIG',
        `MIXPL_COLLECTIVE must be nccl or gloo, the same in all processes, got ${[...kinds].join(', ')}`,
      );
    const apart = new Set(all.map((one) => one.place)).size === this.processes;
    const kind = asked ?? (apart && all.every((one) => one.nccl) ? 'nccl' : 'gloo');
    const host = this.#channels.get(this.rank === 0 ? 1 : 0)?.localAddress ?? '127.0.0.1';
    const collective = await native.openCollective(
      kind,
      this.rank,
      this.processes,
      device,
      host.replace(/^::ffff:/, ''),
    );
    await collective.connect(await this.allGather(collective.address));
    return collective;
  }

  /**
   * What to throw for an error that the end of another process may be the cause of: that one's, if it is told.
   * @internal
   */
  async explain(error: unknown): Promise<unknown> {
    // The connections of a process end in any order.
    for (let i = 0; i < 40 && !this.#failure; i++) await sleep(50);
    return this.#failure ?? error;
  }

  /** Tells the others that this process cannot go on, and why; the first failure of all counts. Idempotent. */
  fail(error: unknown): void {
    if (this.#failure || this.#closed) return;
    const { rank } = this;
    const message = error instanceof Error ? error.message : String(error);
    this.#send({ type: 'failed', rank, message });
    this.#fail(rank, message);
  }

  /** Leaves the group; leaving before the others are done ends them. Idempotent. */
  async close(): Promise<void> {
    if (this.#closed) return;
    if (!this.#failure) this.#send({ type: 'leave' });
    this.#closed = true;
    for (const channel of this.#channels.values()) channel.close();
    (await this.#collective?.catch(() => null))?.abort();
    await this.#onClose();
  }
  /** close(), for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #call(mode: Mode, value: unknown): Promise<unknown> {
    const call = this.#calls++;
    const stop = this.#signal?.aborted ?? false;
    if (this.#failure) throw this.#failure;
    if (this.#closed) throw new MixplError('ERR_DISPOSED', 'processes: the group was closed');
    if (this.rank === 0) {
      if (mode === 'from-first') this.#answer(call, { value, stop });
      else this.#give({ type: 'give', call, mode, value, stop }, 0);
    } else if (mode !== 'from-first') this.#send({ type: 'give', call, mode, value, stop });
    if (mode === 'first' && this.rank !== 0) return null;
    const answer = await this.#answerTo(call);
    if (mode === 'all') this.#stopped ||= answer.stop;
    return answer.value;
  }

  #answerTo(call: number): Promise<Answer> {
    const answer = this.#answers.get(call);
    this.#answers.delete(call);
    if (answer) return Promise.resolve(answer);
    return new Promise((resolve, reject) => {
      this.#waiting.set(call, { resolve, reject });
      this.#missGone();
    });
  }

  #take(call: number, answer: Answer): void {
    const waiting = this.#waiting.get(call);
    this.#waiting.delete(call);
    if (waiting) waiting.resolve(answer);
    else this.#answers.set(call, answer);
  }

  /** Of rank 0: to everybody, itself included. */
  #answer(call: number, answer: Answer): void {
    this.#send({ type: 'take', call, ...answer });
    this.#take(call, answer);
  }

  /** Of rank 0: takes what somebody gave. */
  #give({ call, mode, value, stop }: Extract<Message, { type: 'give' }>, rank: number): void {
    let gathering = this.#gatherings.get(call);
    if (!gathering) {
      const values = new Array<unknown>(this.processes);
      gathering = { mode, values, stop: false, given: new Set() };
      this.#gatherings.set(call, gathering);
    }
    if (gathering.mode !== mode) {
      const got = `'${mode}' and '${gathering.mode}'`;
      this.fail(
        new MixplError('ERR_INTERNAL', `call ${call} must be the same everywhere, got ${got}`),
      );
      return;
    }
    gathering.values[rank] = value;
    gathering.stop ||= stop;
    gathering.given.add(rank);
    if (gathering.given.size < this.processes) {
      this.#missGone();
      return;
    }
    this.#gatherings.delete(call);
    const answer = { value: gathering.values, stop: gathering.stop };
    if (mode === 'all') this.#answer(call, answer);
    else this.#take(call, answer);
  }

  #receive(peer: number, message: Message | null): void {
    switch (message?.type) {
      case 'give':
        this.#give(message, peer);
        break;
      case 'take':
        this.#take(message.call, message);
        break;
      case 'failed':
        if (this.rank === 0) this.#send(message, peer);
        this.#fail(message.rank, message.message);
        break;
      case 'leave':
        this.#left.add(peer);
        break;
      default:
        this.#ended(peer);
    }
  }

  #ended(peer: number): void {
    if (this.#left.has(peer)) {
      this.#gone.add(peer);
      this.#missGone();
      return;
    }
    const why = 'its connection ended: was it killed?';
    if (this.rank === 0) this.#send({ type: 'failed', rank: peer, message: why }, peer);
    this.#fail(peer, why);
  }

  /** Who has gone in order is missed only where somebody waits for it. */
  #missGone(): void {
    for (const peer of this.#gone) {
      const missed =
        this.rank === 0
          ? [...this.#gatherings.values()].some(({ given }) => given.has(0) && !given.has(peer))
          : this.#waiting.size > 0;
      if (missed) this.fail(new MixplError('ERR_STATE', `process ${peer} ended before it`));
    }
  }

  #fail(rank: number, message: string): void {
    if (this.#failure || this.#closed) return;
    this.#failure = new MixplError(
      'ERR_PROCESS',
      `process ${rank} of ${this.processes} ended the training: ${message}`,
    );
    for (const { reject } of this.#waiting.values()) reject(this.#failure);
    this.#waiting.clear();
    // Whoever sums waits in vain.
    this.#collective?.then((collective) => collective.abort()).catch(() => {});
  }

  /** To rank 0; from there to all. */
  #send(message: Message, but?: number): void {
    for (const [peer, channel] of this.#channels) if (peer !== but) channel.send(message);
  }
}

function checkPlace({ rank, processes, address, secret }: JoinOptions): void {
  const refuse = (message: string): never => {
    throw new MixplError('ERR_CONFIG', `processes: ${message}`);
  };
  if (!Number.isInteger(processes) || processes < 1)
    refuse(`processes must be a whole number >= 1, got ${processes}`);
  if (!Number.isInteger(rank) || rank < 0 || rank >= processes)
    refuse(`rank must be in 0 … ${processes - 1}, got ${rank}`);
  splitAddress(address);
  if (typeof secret !== 'string' || secret.length < 8)
    refuse('secret must have at least 8 characters, as whoever knows it can join');
}

let machine: string | undefined;
/** The same for processes that share their GPUs. */
function machineId(): string {
  machine ??= (() => {
    try {
      return `${hostname()} ${readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()}`;
    } catch {
      return hostname();
    }
  })();
  return machine;
}

/** How the processes of a training find each other: all of them call rank 0. */
import { createHash, timingSafeEqual } from 'node:crypto';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { MixplError } from '../errors.js';
import { Channel } from './channel.js';

/** A process's place among those of a training. */
export interface ProcessPlace {
  /** 0 … processes-1. */
  rank: number;
  processes: number;
  /** `host:port` of rank 0. */
  address: string;
  /** Secret that all processes of the training know, and nobody else. */
  secret: string;
}

const magic = 'mixpl-1\n';
const helloBytes = magic.length + 8 + 32;
/** Between two calls. */
const pauseMs = 200;
/** Node's timers end at once beyond this. */
const longestTimerMs = 2 ** 31 - 1;

/** @throws MixplError ERR_CONFIG */
export function splitAddress(address: string): { host: string; port: number } {
  const found = /^\[?(.+?)\]?:(\d{1,5})$/.exec(address);
  const port = Number(found?.[2]);
  if (!found || port > 65535)
    throw new MixplError('ERR_CONFIG', `processes: address must be host:port, got '${address}'`);
  return { host: found[1]!, port };
}

/** What rank 0 does: listens until everybody is there. */
export class Meeting {
  /** `host:port`, with the port that the system gave for 0. */
  readonly address: string;
  readonly #server: Server;
  readonly #place: Omit<ProcessPlace, 'address'>;
  readonly #channels = new Map<number, Channel>();
  readonly #complete: Promise<ReadonlyMap<number, Channel>>;
  #done = false;
  #resolve!: (channels: ReadonlyMap<number, Channel>) => void;
  #reject!: (error: Error) => void;

  private constructor(server: Server, place: Omit<ProcessPlace, 'address'>, host: string) {
    this.#server = server;
    this.#place = place;
    const bound = server.address();
    const port = typeof bound === 'object' && bound ? bound.port : 0;
    this.address = `${host.includes(':') ? `[${host}]` : host}:${port}`;
    this.#complete = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.#complete.catch(() => {}); // told to who waits
    server.on('connection', (socket) => this.#greet(socket));
    server.on('error', (cause) => this.fail(asError(this.address, cause)));
  }

  /** @throws MixplError ERR_STATE when the address cannot be listened on */
  static async open({ address, ...place }: ProcessPlace): Promise<Meeting> {
    const { host, port } = splitAddress(address);
    const server = createServer();
    await new Promise<void>((resolve, reject) => {
      server.once('error', (cause) => reject(asError(address, cause)));
      server.listen({ host, port }, resolve);
    });
    return new Meeting(server, place, host);
  }

  /** By rank. @throws MixplError ERR_STATE after `timeoutMs`, saying who is missing */
  async everybody(timeoutMs: number): Promise<ReadonlyMap<number, Channel>> {
    const { processes } = this.#place;
    if (processes === 1) this.#resolve(this.#channels);
    const timer = setTimeout(() => {
      const missing = Array.from({ length: processes - 1 }, (_, i) => i + 1).filter(
        (rank) => !this.#channels.has(rank),
      );
      this.fail(
        new MixplError(
          'ERR_STATE',
          `processes: all ${processes} must call ${this.address} within ${timeoutMs / 1000} s, got no call of rank ${missing.join(', ')}`,
        ),
      );
    }, timeoutMs);
    try {
      return await this.#complete;
    } finally {
      this.#done = true;
      clearTimeout(timer);
      this.#server.close();
    }
  }

  /** Ends the wait, if it has not ended. */
  fail(error: Error): void {
    if (this.#done) return;
    this.#done = true;
    this.#reject(error);
    this.#server.close();
    for (const channel of this.#channels.values()) channel.close();
  }

  /** Nothing of a caller is looked at before it has shown the secret. */
  #greet(socket: Socket): void {
    socket.on('error', () => {});
    socket.setTimeout(10_000, () => socket.destroy());
    let hello = Buffer.alloc(0);
    const read = (chunk: Buffer) => {
      hello = Buffer.concat([hello, chunk]);
      if (hello.length < helloBytes) return;
      socket.off('data', read);
      const expected = helloOf({ ...this.#place, rank: hello.readInt32BE(magic.length) });
      const shown = hello.subarray(0, helloBytes);
      const digest = magic.length + 8;
      if (!timingSafeEqual(shown.subarray(digest), expected.subarray(digest))) {
        socket.destroy();
        return;
      }
      socket.setTimeout(0);
      this.#welcome(socket, shown);
    };
    socket.on('data', read);
  }

  #welcome(socket: Socket, hello: Buffer): void {
    const { processes } = this.#place;
    const rank = hello.readInt32BE(magic.length);
    const theirs = hello.readInt32BE(magic.length + 4);
    const protocol = hello.toString('latin1', 0, magic.length);
    const channel = new Channel(socket);
    let problem = '';
    if (protocol !== magic)
      problem = `protocol must be ${named(magic)}, got ${named(protocol)} (is the version of mixpl the same?)`;
    else if (theirs !== processes) problem = `processes must be ${processes}, got ${theirs}`;
    else if (rank < 1 || rank >= processes)
      problem = `rank must be in 1 … ${processes - 1}, got ${rank}`;
    else if (this.#channels.has(rank))
      problem = `rank must be free, got ${rank}, which has called already`;
    channel.send({ welcome: problem === '', problem });
    if (problem) {
      channel.close();
      return;
    }
    this.#channels.set(rank, channel);
    if (this.#channels.size === processes - 1) this.#resolve(this.#channels);
  }
}

/**
 * What the others do: they call rank 0 until it answers.
 * @throws MixplError ERR_STATE when nobody answers within `timeoutMs`, or refuses
 */
export async function joinMeeting(place: ProcessPlace, timeoutMs: number): Promise<Channel> {
  const { host, port } = splitAddress(place.address);
  const end = performance.now() + timeoutMs;
  const refuse = (got: string): never => {
    throw new MixplError(
      'ERR_STATE',
      `processes: rank ${place.rank} must reach rank 0 at ${place.address} within ${timeoutMs / 1000} s, got ${got}`,
    );
  };
  for (;;) {
    const outcome = await callOnce({ host, port }, helloOf(place), end - performance.now());
    if (outcome instanceof Channel) return outcome;
    if (outcome.final || performance.now() + pauseMs > end) refuse(outcome.problem);
    await sleep(pauseMs);
  }
}

async function callOnce(
  target: { host: string; port: number },
  hello: Buffer,
  timeoutMs: number,
): Promise<Channel | { problem: string; final: boolean }> {
  const socket = connect(target);
  const late = new Error('no answer');
  const timer = setTimeout(() => socket.destroy(late), Math.min(timeoutMs, longestTimerMs));
  try {
    const refusal = await new Promise<Error | null>((resolve) => {
      socket.once('connect', () => resolve(null));
      socket.once('error', resolve);
    });
    if (refusal) return { problem: refusal.message, final: false };
    const channel = new Channel(socket);
    socket.write(hello);
    const answer = (await channel.next()) as { welcome?: boolean; problem?: string } | null;
    if (answer?.welcome) return channel;
    socket.destroy();
    const problem =
      socket.errored === late
        ? late.message
        : answer === null
          ? 'a closed connection (is the secret the same?)'
          : (answer?.problem ?? 'an answer of another protocol');
    return { problem, final: true };
  } finally {
    clearTimeout(timer);
  }
}

function named(protocol: string): string {
  return JSON.stringify(protocol.trimEnd());
}

function helloOf({ rank, processes, secret }: Omit<ProcessPlace, 'address'>): Buffer {
  const hello = Buffer.alloc(helloBytes);
  hello.write(magic, 'latin1');
  hello.writeInt32BE(rank, magic.length);
  hello.writeInt32BE(processes, magic.length + 4);
  createHash('sha256')
    .update(secret)
    .digest()
    .copy(hello, magic.length + 8);
  return hello;
}

function asError(address: string, cause: Error): MixplError {
  return new MixplError(
    'ERR_STATE',
    `processes: rank 0 must be able to listen on ${address}, got ${cause.message}`,
    { cause },
  );
}

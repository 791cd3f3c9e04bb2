/** PyTorch's side: a process that times the same cases on request. */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { MixplError } from '../errors.js';
import type { PeerCase } from './case.js';

const script = fileURLToPath(new URL('../../scripts/peers/ops_torch.py', import.meta.url));

export interface TorchOptions {
  device: string;
  threads: number;
  /** @defaultValue BENCH_PYTHON, else python3 */
  python?: string | undefined;
}

export interface PeerRun {
  /** @param runs back to back, with one wait at their end @returns ms of one */
  run(runs: number): Promise<number>;
}

/** The process; a case that ends it does not take the others along: the next one gets another. */
export class TorchPeer implements Disposable {
  readonly name: string;
  readonly #options: TorchOptions;
  #process: PeerProcess;

  private constructor(options: TorchOptions, process: PeerProcess) {
    this.#options = options;
    this.#process = process;
    this.name = process.name;
  }

  /** @throws MixplError ERR_STATE when Python, torch or torchvision is not to be had */
  static async start(options: TorchOptions): Promise<TorchPeer> {
    return new TorchPeer(options, await PeerProcess.start(options));
  }

  /** null: the peer has no such case. @throws MixplError ERR_STATE when it fails */
  async prepare(spec: PeerCase): Promise<PeerRun | null> {
    if (this.#process.ended) this.#process = await PeerProcess.start(this.#options);
    const process = this.#process;
    if ((await process.ask({ prepare: spec })) === null) return null;
    return { run: async (runs) => Number(await process.ask({ run: runs })) };
  }

  [Symbol.dispose](): void {
    this.#process.end();
  }
}

class PeerProcess {
  readonly name: string;
  ended = false;
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #lines: AsyncIterator<string>;
  readonly #complaint: () => string;

  private constructor(
    child: ChildProcessWithoutNullStreams,
    lines: AsyncIterator<string>,
    { name, complaint }: { name: string; complaint: () => string },
  ) {
    this.#child = child;
    this.#lines = lines;
    this.#complaint = complaint;
    this.name = name;
  }

  static async start({ device, threads, python }: TorchOptions): Promise<PeerProcess> {
    const program = python ?? process.env.BENCH_PYTHON ?? 'python3';
    const child = spawn(program, [script, device, String(threads)], {
      // glibc would give blocks above 32 MiB back to the system at every free.
      env: {
        ...process.env,
        OMP_NUM_THREADS: String(threads),
        MALLOC_MMAP_THRESHOLD_: '4294967296',
        MALLOC_TRIM_THRESHOLD_: '4294967296',
      },
    });
    let text = '';
    child.stderr.setEncoding('utf8').on('data', (more: string) => {
      text = (text + more).slice(-2000);
    });
    const complaint = () => text.trim().split('\n').at(-1) || 'it ended';
    // Writing to one that has just ended; reading says so.
    child.stdin.on('error', () => undefined);
    const failed = new Promise<never>((_, reject) =>
      child.on('error', (error) => reject(unusable(program, error.message))),
    );
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const hello = await Promise.race([failed, lines.next()]);
    if (hello.done) throw unusable(program, complaint());
    const { torch, torchvision } = JSON.parse(hello.value) as Record<string, string>;
    const name = `torch ${torch}, torchvision ${torchvision}`;
    return new PeerProcess(child, lines, { name, complaint });
  }

  async ask(question: unknown): Promise<unknown> {
    this.#child.stdin.write(`${JSON.stringify(question)}\n`);
    const { value, done } = await this.#lines.next();
    if (done) this.ended = true;
    const answer = done ? { error: this.#complaint() } : (JSON.parse(value) as unknown);
    if (typeof answer === 'object' && answer !== null && 'error' in answer)
      throw new MixplError(
        'ERR_STATE',
        `bench: the peer failed at ${JSON.stringify(question)}: ${answer.error}`,
      );
    return answer;
  }

  end(): void {
    this.#child.kill();
  }
}

const unusable = (program: string, reason: string) =>
  new MixplError(
    'ERR_STATE',
    `bench: --peer torch needs Python with torch and torchvision, got '${program}': ${reason}; ` +
      'try BENCH_PYTHON=/path/to/python3',
  );

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

export class TorchPeer implements Disposable {
  readonly name: string;
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #lines: AsyncIterator<string>;

  private constructor(
    child: ChildProcessWithoutNullStreams,
    lines: AsyncIterator<string>,
    name: string,
  ) {
    this.#child = child;
    this.#lines = lines;
    this.name = name;
  }

  /** @throws MixplError ERR_STATE when Python, torch or torchvision is not to be had */
  static async start({ device, threads, python }: TorchOptions): Promise<TorchPeer> {
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
    let complaint = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      complaint = (complaint + text).slice(-2000);
    });
    const failed = new Promise<never>((_, reject) =>
      child.on('error', (error) => reject(unusable(program, error.message))),
    );
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const hello = await Promise.race([failed, lines.next()]);
    if (hello.done) throw unusable(program, complaint.trim().split('\n').at(-1) ?? 'it ended');
    const { torch, torchvision } = JSON.parse(hello.value) as Record<string, string>;
    return new TorchPeer(child, lines, `torch ${torch}, torchvision ${torchvision}`);
  }

  /** null: the peer has no such case. @throws MixplError ERR_STATE when it fails */
  async prepare(spec: PeerCase): Promise<{ run(): Promise<number> } | null> {
    if ((await this.#ask({ prepare: spec })) === null) return null;
    return { run: async () => Number(await this.#ask('run')) };
  }

  async #ask(question: unknown): Promise<unknown> {
    this.#child.stdin.write(`${JSON.stringify(question)}\n`);
    const { value, done } = await this.#lines.next();
    const answer = done ? { error: 'it ended' } : (JSON.parse(value) as unknown);
    if (typeof answer === 'object' && answer !== null && 'error' in answer)
      throw new MixplError(
        'ERR_STATE',
        `bench: the peer failed at ${JSON.stringify(question)}: ${answer.error}`,
      );
    return answer;
  }

  [Symbol.dispose](): void {
    this.#child.kill();
  }
}

const unusable = (program: string, reason: string) =>
  new MixplError(
    'ERR_STATE',
    `bench: --peer torch needs Python with torch and torchvision, got '${program}': ${reason}; ` +
      'try BENCH_PYTHON=/path/to/python3',
  );

/** Messages between two processes of a training: values of structuredClone's kinds over a socket, in order. */
import type { Socket } from 'node:net';
import { deserialize, serialize } from 'node:v8';

const headerBytes = 4;
const largestMessage = 2 ** 32 - 1;

/** One end of a connection. */
export class Channel {
  readonly #socket: Socket;
  /** Takes each message, and the end (null), which comes once; until there is one, they wait. */
  #handler: ((message: unknown) => void) | null = null;
  readonly #waiting: unknown[] = [];
  #chunks: Buffer[] = [];
  #bytes = 0;
  #ended = false;

  /** @param socket of somebody who is trusted: messages are objects of V8's */
  constructor(socket: Socket) {
    this.#socket = socket;
    socket.setNoDelay(true);
    socket.setKeepAlive(true, 10_000);
    socket.on('data', (chunk) => this.#take(chunk));
    // What is wrong with a socket is that it ends; 'close' follows.
    socket.on('error', () => {});
    socket.on('end', () => this.#end());
    socket.on('close', () => this.#end());
  }

  /** An address of this machine that the other end reaches. */
  get localAddress(): string {
    return this.#socket.localAddress ?? '127.0.0.1';
  }

  /** Gives the handler every message that no next() took, and then the end: null, once. */
  set onMessage(handler: (message: unknown) => void) {
    this.#handler = handler;
    for (const message of this.#waiting.splice(0)) handler(message);
  }

  /** The next message, or null at the end. */
  next(): Promise<unknown> {
    if (this.#waiting.length > 0) return Promise.resolve(this.#waiting.shift());
    return new Promise((resolve) => {
      this.#handler = (message) => {
        this.#handler = null;
        resolve(message);
      };
    });
  }

  #deliver(message: unknown): void {
    if (this.#handler) this.#handler(message);
    else this.#waiting.push(message);
  }

  send(message: unknown): void {
    if (this.#ended) return; // the end was told
    const body = serialize(message);
    if (body.length > largestMessage)
      throw new RangeError(`a message must have at most ${largestMessage} bytes`);
    const header = Buffer.alloc(headerBytes);
    header.writeUInt32BE(body.length);
    this.#socket.write(header);
    this.#socket.write(body);
  }

  /** Everything that was sent goes out; nothing is told any more. */
  close(): void {
    this.#ended = true;
    this.#handler = () => {};
    this.#socket.end();
    this.#socket.unref();
  }

  #take(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    for (;;) {
      if (this.#bytes < headerBytes) return;
      if (this.#chunks[0]!.length < headerBytes) this.#chunks = [Buffer.concat(this.#chunks)];
      const length = this.#chunks[0]!.readUInt32BE();
      if (this.#bytes < headerBytes + length) return;
      const all = this.#chunks.length > 1 ? Buffer.concat(this.#chunks) : this.#chunks[0]!;
      const body = all.subarray(headerBytes, headerBytes + length);
      const rest = all.subarray(headerBytes + length);
      this.#chunks = rest.length > 0 ? [rest] : [];
      this.#bytes = rest.length;
      let message: unknown;
      try {
        message = deserialize(body);
      } catch {
        this.#socket.destroy(); // whoever it is, it is no end of a channel
        return;
      }
      this.#deliver(message);
    }
  }

  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#deliver(null);
  }
}

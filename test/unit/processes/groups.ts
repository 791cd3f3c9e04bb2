/** Groups whose processes are all in this one. */
import { createServer } from 'node:net';
import { type JoinOptions, ProcessGroup } from '../../../lib/processes/index.js';

export const secret = 'a secret of the tests';
const open: ProcessGroup[] = [];

/** For afterEach(). */
export async function closeGroups(): Promise<void> {
  await Promise.all(open.splice(0).map((group) => group.close()));
}

export async function freeAddress(): Promise<string> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return `127.0.0.1:${port}`;
}

export async function join(options: JoinOptions): Promise<ProcessGroup> {
  const group = await ProcessGroup.join(options);
  open.push(group);
  return group;
}

export async function groupOf(processes: number): Promise<ProcessGroup[]> {
  const address = await freeAddress();
  return Promise.all(
    Array.from({ length: processes }, (_, rank) => join({ rank, processes, address, secret })),
  );
}

// Groups of processes; here all of them are in one.
import { createHash } from 'node:crypto';
import { type AddressInfo, createConnection, createServer, type Socket } from 'node:net';
import { finished } from 'node:stream/promises';
import { afterEach, describe, expect, test } from 'vitest';
import { type JoinOptions, ProcessGroup } from '../../../lib/processes/index.js';
import { closeGroups, freeAddress, groupOf, join, secret } from './groups.js';

afterEach(closeGroups);

const failure = (rank: number, message: string) =>
  expect.objectContaining({
    code: 'ERR_PROCESS',
    message: `process ${rank} of 3 ended the training: ${message}`,
  });

describe('values', () => {
  test('go from all to all, to the first, and from it', async () => {
    const groups = await groupOf(3);
    const everybody = <T>(call: (group: ProcessGroup) => Promise<T>) =>
      Promise.all(groups.map(call));
    const value = { numbers: Float32Array.of(1, 2), big: 12n };
    const all = await everybody((g) => g.allGather({ rank: g.rank, ...value }));
    for (const one of all) expect(one).toEqual([0, 1, 2].map((rank) => ({ rank, ...value })));
    expect(await everybody((g) => g.gather(g.rank))).toEqual([[0, 1, 2], null, null]);
    expect(await everybody((g) => g.broadcast(g.rank === 0 ? 'first' : 'other'))).toEqual(
      Array(3).fill('first'),
    );
    expect(groups.map((g) => g.local)).toEqual([0, 1, 2].map((rank) => ({ rank, processes: 3 })));
  });

  test('wait for who comes late, whoever that is', async () => {
    const groups = await groupOf(3);
    for (const late of groups) {
      const order: number[] = [];
      const calls = groups.map(async (group) => {
        if (group === late) await new Promise((resolve) => setTimeout(resolve, 30));
        order.push(group.rank);
        await group.gather('a');
        const first = await group.broadcast(late.rank);
        return [first, await group.allGather(group.rank)];
      });
      expect(await Promise.all(calls)).toEqual(Array(3).fill([late.rank, [0, 1, 2]]));
      expect(order.at(-1)).toBe(late.rank);
    }
  });

  test('of a megabyte and of none', async () => {
    const groups = await groupOf(2);
    const large = Float32Array.from({ length: 1 << 18 }, (_, i) => i);
    const sent = await Promise.all(groups.map((g) => g.allGather(g.rank ? large : undefined)));
    for (const [none, whole] of sent) {
      expect(none).toBeUndefined();
      expect(whole).toEqual(large);
    }
  });

  test('one process is a group, too', async () => {
    const [alone] = await groupOf(1);
    expect(await alone!.allGather('x')).toEqual(['x']);
    expect(await alone!.gather('x')).toEqual(['x']);
    expect(await alone!.broadcast('x')).toBe('x');
  });
});

describe('a wish to stop', () => {
  test('is known to all after the next call of all, and not before', async () => {
    const groups = await groupOf(3);
    const controller = new AbortController();
    groups[2]!.stopWith(controller.signal);
    await Promise.all(groups.map((g) => g.allGather(0)));
    controller.abort();
    await Promise.all(groups.map((g) => g.broadcast(0)));
    expect(groups.map((g) => g.stopped)).toEqual([false, false, false]);
    await Promise.all(groups.map((g) => g.allGather(0)));
    expect(groups.map((g) => g.stopped)).toEqual([true, true, true]);
    for (const group of groups) group.stopWith(null);
    await Promise.all(groups.map((g) => g.allGather(0)));
    expect(groups.map((g) => g.stopped)).toEqual([false, false, false]);
  });
});

describe('failures', () => {
  test.each([0, 1, 2])('of rank %i reach all who wait, and who asks later', async (rank) => {
    const groups = await groupOf(3);
    const others = groups.filter((g) => g.rank !== rank);
    const waiting = others.map((g) => g.allGather(0));
    const [error] = await Promise.allSettled([
      Promise.all(waiting),
      groups[rank]!.fail(new Error('no disk')),
    ]);
    expect(error).toMatchObject({ status: 'rejected', reason: failure(rank, 'no disk') });
    for (const wait of waiting) await expect(wait).rejects.toEqual(failure(rank, 'no disk'));
    for (const group of groups)
      await expect(group.broadcast(0)).rejects.toEqual(failure(rank, 'no disk'));
  });

  test('who leaves before the others are done is missed, who leaves at the end is not', async () => {
    const groups = await groupOf(3);
    const gathered = groups.map((g) => g.gather(g.rank));
    await groups[1]!.close();
    await groups[2]!.close();
    expect(await gathered[0]).toEqual([0, 1, 2]);
    await expect(groups[0]!.allGather(0)).rejects.toMatchObject({
      code: 'ERR_PROCESS',
      message: expect.stringMatching(/process [12] ended before it/),
    });
    const more = await groupOf(3);
    const late = more[2]!.broadcast(null);
    await more[0]!.broadcast('first').then(() => more[0]!.close());
    expect(await late).toBe('first');
    await expect(more[2]!.allGather(0)).rejects.toMatchObject({ code: 'ERR_PROCESS' });
    await expect(more[0]!.allGather(0)).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
  });

  test('calls that differ', async () => {
    const groups = await groupOf(3);
    const calls = [groups[0]!.allGather(0), groups[1]!.gather(0), groups[2]!.allGather(0)];
    const [first, , third] = await Promise.allSettled(calls);
    for (const one of [first, third])
      expect(one).toMatchObject({
        status: 'rejected',
        reason: { message: expect.stringMatching(/call 1 must be the same everywhere/) },
      });
  });
});

describe('who does not belong', () => {
  const place = { processes: 2, secret };

  test('is not let in without the secret, and disturbs nobody', async () => {
    const address = await freeAddress();
    const first = join({ rank: 0, address, ...place });
    const port = Number(address.split(':')[1]);
    for (const bytes of ['GET / HTTP/1.1\r\n\r\n', Buffer.alloc(4000)]) {
      const stranger = createConnection(port, '127.0.0.1', () => stranger.write(bytes));
      stranger.on('error', () => {});
    }
    const wrong = { rank: 1, address, ...place, secret: 'another secret' };
    await expect(ProcessGroup.join(wrong)).rejects.toMatchObject({
      code: 'ERR_STATE',
      message: expect.stringMatching(/is the secret the same\?/),
    });
    const second = await join({ rank: 1, address, ...place });
    expect(await Promise.all([first.then((g) => g.allGather(0)), second.allGather(1)])).toEqual([
      [0, 1],
      [0, 1],
    ]);
  });

  test('with the secret, but of another protocol, is told so', async () => {
    const address = await freeAddress();
    const first = join({ rank: 0, address, ...place });
    const stranger = createConnection(Number(address.split(':')[1]), '127.0.0.1');
    const digest = createHash('sha256').update(secret).digest();
    stranger.write(Buffer.concat([Buffer.from('mixpl-9\n\0\0\0\x01\0\0\0\x02'), digest]));
    expect(Buffer.concat(await stranger.toArray()).toString()).toContain(
      'protocol must be "mixpl-1", got "mixpl-9"',
    );
    await join({ rank: 1, address, ...place });
    await first;
  });

  test.each<[string, string, RegExp]>([
    ['says nothing', '', /within 0.5 s, got no answer/],
    ['says something else', '\0\0\0\x03abc', /got a closed connection/],
  ])('who listens and %s', async (_, words, message) => {
    const sockets: Socket[] = [];
    const server = createServer((socket) => {
      sockets.push(socket);
      socket.write(words);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const address = `127.0.0.1:${(server.address() as AddressInfo).port}`;
    await expect(
      ProcessGroup.join({ rank: 1, address, ...place, timeoutMs: 500 }),
    ).rejects.toMatchObject({ code: 'ERR_STATE', message: expect.stringMatching(message) });
    // The connection ends with the wait.
    await Promise.all(sockets.map((socket) => finished(socket.resume()).catch(() => {})));
    server.close();
  });

  test.each<[string, Partial<JoinOptions>, RegExp]>([
    ['another number of processes', { processes: 3 }, /processes must be 2, got 3/],
    ['a place that is taken', { rank: 1 }, /rank must be free, got 1/],
  ])('%s', async (_, changes, message) => {
    const address = await freeAddress();
    const three = { processes: 3, secret };
    const isTaken = 'rank' in changes;
    const first = ProcessGroup.join({
      rank: 0,
      address,
      ...(isTaken ? three : place),
      timeoutMs: 1500,
    });
    const settled = first.catch((error: unknown) => error);
    if (isTaken) void ProcessGroup.join({ rank: 1, address, ...three }).catch(() => {});
    if (isTaken) await new Promise((resolve) => setTimeout(resolve, 300));
    const wrong = { rank: 1, address, ...(isTaken ? three : place), ...changes };
    await expect(ProcessGroup.join(wrong)).rejects.toMatchObject({
      code: 'ERR_STATE',
      message: expect.stringMatching(message),
    });
    expect(await settled).toMatchObject({
      code: 'ERR_STATE',
      message: expect.stringMatching(isTaken ? /got no call of rank 2/ : /got no call of rank 1/),
    });
  });

  test.each<[string, Partial<JoinOptions>, RegExp]>([
    ['a rank', { rank: 2 }, /rank must be in 0 … 1, got 2/],
    ['processes', { processes: 0 }, /processes must be a whole number/],
    ['an address', { address: 'here' }, /address must be host:port, got 'here'/],
    ['a port', { address: 'here:70000' }, /host:port/],
    ['a secret', { secret: 'short' }, /secret must have at least 8 characters/],
  ])('%s that is none', async (_, changes, message) => {
    const options = { rank: 0, address: '127.0.0.1:0', ...place, ...changes };
    await expect(ProcessGroup.join(options)).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message: expect.stringMatching(message),
    });
  });

  test('nobody there; an address that is taken', async () => {
    const address = await freeAddress();
    await expect(
      ProcessGroup.join({ rank: 1, address, ...place, timeoutMs: 300 }),
    ).rejects.toMatchObject({ code: 'ERR_STATE', message: expect.stringMatching(/ECONNREFUSED/) });
    const server = createServer();
    const port = Number(address.split(':')[1]);
    await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
    await expect(ProcessGroup.join({ rank: 0, address, ...place })).rejects.toMatchObject({
      code: 'ERR_STATE',
      message: expect.stringMatching(/must be able to listen on .*EADDRINUSE/),
    });
    server.close();
  });
});

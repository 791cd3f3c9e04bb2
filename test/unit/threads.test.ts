// How many cores a process may use.
import { availableParallelism } from 'node:os';
import { expect, test } from 'vitest';
import { cpuQuota, usableCores } from '../../lib/threads.js';

const quotaOf = (files: Record<string, string>) => cpuQuota((path) => files[path] ?? null);

test.each([
  ['nothing is known', {}, null],
  [
    'version 2, as a container sees itself',
    { '/proc/self/cgroup': '0::/\n', '/sys/fs/cgroup/cpu.max': '250000 100000\n' },
    2.5,
  ],
  [
    'version 2 without a limit',
    { '/proc/self/cgroup': '0::/\n', '/sys/fs/cgroup/cpu.max': 'max 100000\n' },
    null,
  ],
  [
    'version 2, the tightest of the groups around it',
    {
      '/proc/self/cgroup': '0::/pods/pod:1/box\n',
      '/sys/fs/cgroup/pods/pod:1/box/cpu.max': '800000 100000\n',
      '/sys/fs/cgroup/pods/pod:1/cpu.max': '150000 50000\n',
      '/sys/fs/cgroup/pods/cpu.max': 'max 100000\n',
    },
    3,
  ],
  [
    'version 1, whatever else it controls',
    {
      '/proc/self/cgroup': '5:memory:/a\n3:cpu,cpuacct:/a/b\n2:cpuset:/\n0::/\n',
      '/sys/fs/cgroup/cpu/a/b/cpu.cfs_quota_us': '-1\n',
      '/sys/fs/cgroup/cpu/a/b/cpu.cfs_period_us': '100000\n',
      '/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us': '400000\n',
      '/sys/fs/cgroup/cpu/a/cpu.cfs_period_us': '100000\n',
    },
    4,
  ],
  [
    'version 1 in a container, which sees its group at the top',
    {
      '/proc/self/cgroup': '3:cpu:/docker/0123\n',
      '/sys/fs/cgroup/cpu/cpu.cfs_quota_us': '50000\n',
      '/sys/fs/cgroup/cpu/cpu.cfs_period_us': '100000\n',
    },
    0.5,
  ],
  [
    'what cannot be understood',
    { '/proc/self/cgroup': 'x\n0::/\n', '/sys/fs/cgroup/cpu.max': 'much\n' },
    null,
  ],
])('%s', (_, files, quota) => {
  expect(quotaOf(files as Record<string, string>)).toBe(quota);
});

test('at least one, and no more than there are', () => {
  expect(usableCores()).toBeGreaterThanOrEqual(1);
  expect(usableCores()).toBeLessThanOrEqual(availableParallelism());
});

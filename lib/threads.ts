import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';

/** Threads that native work may have, as the native side bounds them. */
export const maxThreads = 1024;

/**
 * Cores that this process may use: those that it is bound to, and no more than the CPU quota of its container, which
 * neither OpenMP nor Node 20 knows. With more threads than the quota the kernel stops all of them again and again.
 */
export function usableCores(): number {
  const quota = process.platform === 'linux' ? cpuQuota(contentsOf) : null;
  return Math.min(availableParallelism(), Math.max(1, Math.floor(quota ?? Infinity)));
}

/**
 * Cores' worth of time that the control groups of this process allow; null: no limit.
 * @param read a file's contents, null where there is none
 * @source Linux, Documentation/admin-guide/cgroup-v2.rst and scheduler/sched-bwc.rst
 */
export function cpuQuota(read: (path: string) => string | null): number | null {
  const groups = (read('/proc/self/cgroup') ?? '').split('\n').map((line) => {
    const [, controllers = '', path = '/'] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    return { controllers: controllers.split(','), path };
  });
  const quotas = groups.flatMap(({ controllers, path }) => {
    if (controllers.includes('cpu'))
      return ancestors(path).map((group) => ofVersion1(read, `/sys/fs/cgroup/cpu${group}`));
    if (controllers.join() !== '') return [];
    return ancestors(path).map((group) => ofVersion2(read, `/sys/fs/cgroup${group}`));
  });
  const limits = quotas.filter((quota) => quota !== null && quota > 0) as number[];
  return limits.length > 0 ? Math.min(...limits) : null;
}

/** A group and those around it, as '/a/b/', '/a/', '/'. Inside a container a group may be seen under '/' alone. */
function ancestors(path: string): string[] {
  const names = path.split('/').filter(Boolean);
  return names.map((_, i) => `/${names.slice(0, names.length - i).join('/')}/`).concat('/');
}

/** 'max 100000', or the microseconds that may be used in a period of so many. */
function ofVersion2(read: (path: string) => string | null, folder: string): number | null {
  const [used, period] = (read(`${folder}cpu.max`) ?? '').split(' ').map(Number);
  return used && period ? used / period : null;
}

/** -1: no limit. */
function ofVersion1(read: (path: string) => string | null, folder: string): number | null {
  const [used, period] = ['cpu.cfs_quota_us', 'cpu.cfs_period_us'].map((name) =>
    Number(read(folder + name)),
  );
  return used && period && used > 0 ? used / period : null;
}

function contentsOf(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return null;
  }
}

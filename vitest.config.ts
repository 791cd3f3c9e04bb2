import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // Native work is threaded; forks keep the addon's state of one file away from the next.
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 60_000,
    setupFiles: process.env.MIXPL_TEST_NUDGE ? ['test/nudge.ts'] : [],
    env: { OMP_NUM_THREADS: '1', MIXPL_CHECK_MEMORY: '1' },
  },
});

import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

const sources = {
  'core/cuda/launch.h': `
template <typename... P> void launch(void (*kernel)(P...), Grid grid, dim3 block, size_t bytes) {}
template <typename F>
void for_each(int64_t n, F f, std::source_location where = std::source_location::current()) {
  launch(for_each_kernel<F>, Grid(blocks_for(n), where), 256, 0, n, f);
}
`,
  'ops/sums_cuda.h': `
template <typename Row>
void add_rows(const Row* rows) {
  launch(add_kernel<Row>, dim3(1),
         dim3(32), 0, rows);
}
`,
  'ops/sums_cuda.cu': `
// launch(commented, 1, 1, 0);
void fill() { for_each(n, Fill<float>{a, f(b)}); }
void sort() { std::for_each(a, b, f); }
void mark() { launch(mark_kernel<4, T>, 1, 32, 0, a); }
`,
  'ops/sums_cuda_test.cu': 'void f() { launch(of_a_test, 1, 1, 0); }',
};
const rows =
  'void mixpl::cuda::add_rows(const Row*) [with Row = {anonymous}::Pair; int64_t = long int]';
const words = rows.replace('Pair', 'Word');
const lines = [
  `1\t../native/ops/sums_cuda.h:4\t${rows}\t1\t32`,
  `1\t../native/ops/sums_cuda.h:4\t${rows}\t4\t128`,
  `2\t../native/ops/sums_cuda.h:5\t${rows}\t2\t64`,
  `2\t../native/ops/sums_cuda.h:4\t${words}\t1\t32`,
  '2\t../native/ops/sums_cuda.cu:3\tvoid fill()\t8\t2048',
];

const marked = '2\t../native/ops/sums_cuda.cu:5\tvoid mark()\t1\t32';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'mixpl-coverage-'));
  for (const [path, text] of Object.entries(sources)) {
    mkdirSync(join(folder, 'native', path, '..'), { recursive: true });
    writeFileSync(join(folder, 'native', path), text);
  }
});
afterEach(() => rmSync(folder, { recursive: true }));

function coverage(made: readonly string[]) {
  const file = join(folder, 'coverage.tsv');
  writeFileSync(file, made.map((line) => `${line}\n`).join(''));
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ['scripts/cuda-coverage.mjs', file, folder],
    { encoding: 'utf8' },
  );
  expect(stderr).toBe('');
  const table = stdout.split('\n').map((line) => line.trim().split(/ {2,}/));
  return { status, table };
}

describe('the list of launches', () => {
  test('has a row for each, in headers too, and one for what its template was made for', () => {
    const { table } = coverage(lines);
    expect(table.slice(1, -1)).toEqual([
      ['for_each(Fill)', '8', '2048', 'native/ops/sums_cuda.cu:3'],
      ['mark_kernel<4, T>', 'NEVER LAUNCHED', 'native/ops/sums_cuda.cu:5'],
      ['add_kernel<Row>', '7', '224', 'native/ops/sums_cuda.h:4'],
      ['Pair', '6', '192'],
      ['Word', '1', '32'],
      ['cuda coverage: 2 of 3 launches were made'],
    ]);
  });

  test('says which cannot be emulated, and does not ask for them', () => {
    const path = join(folder, 'native/ops/tiles_cuda.h');
    writeFileSync(
      path,
      '#include "core/cuda/bulk_copies.h"\nvoid f() { launch(tile_kernel, 1, 1, 0); }\n',
    );
    const { status, table } = coverage([...lines, marked]);
    expect(table).toContainEqual(['tile_kernel', 'on GPUs only', 'native/ops/tiles_cuda.h:2']);
    expect(table.at(-2)).toEqual([
      'cuda coverage: 3 of 3 launches were made, 1 cannot be emulated',
    ]);
    expect(status).toBe(0);
  });

  test('fails when one was never made', () => {
    expect(coverage(lines).status).toBe(1);
    expect(coverage([...lines, marked]).status).toBe(0);
  });
});

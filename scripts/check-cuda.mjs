// The work of scripts/check-cuda.sh.
import { execFile, execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { basename, join, relative, resolve } from 'node:path';
import { parseArgs, promisify } from 'node:util';
import { countInstructions } from './ptx.mjs';

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: Object.fromEntries(
    ['built', 'hot', 'all', 'others'].map((name) => [name, { type: 'boolean' }]),
  ),
});
const kept = 'build/check-cuda';
mkdirSync(kept, { recursive: true });

const hot = readFileSync('scripts/hot-kernels.txt', 'utf8')
  .split('\n')
  .filter((line) => line.trim() && !line.startsWith('#'))
  .map((line) => {
    const [file, pattern, ...wanted] = line.trim().split(/\s+/);
    if (!pattern)
      throw new Error(`scripts/hot-kernels.txt: not "file pattern instructions…": ${line}`);
    return { file: join('native', file), pattern: new RegExp(pattern), wanted, matched: false };
  });

// What a release has code for, from the one place that says it: "arch=compute_90a,code=sm_90a".
const [, release] = /MIXPL_RELEASE_CODE ([^)]+)/.exec(readFileSync('CMakeLists.txt', 'utf8'));
const code = [...release.matchAll(/"([^"]+)"/g)].map(([, entry]) => entry);
const mode = flags.all ? '-all' : flags.others ? '-others' : '';

/** Whether a file is compiled for an entry of the code. */
function isChecked(file, entry) {
  const development = entry.includes('sm_90a');
  if (flags.all || development !== Boolean(flags.others)) return true;
  return development && hot.some((rule) => rule.file === file && rule.wanted.includes('wgmma'));
}

// As CMakeLists.txt compiles them; what the host runs of a file is the build's to compile.
const options = ['-std=c++20', '-O3', '--expt-relaxed-constexpr', '--fmad=false', '-Inative'];
options.push('-DMIXPL_WITH_CUDA', '-DMIXPL_CUDA_ARCHITECTURE_LIST=""');
options.push('-Xptxas=-v', '-fatbin', '--keep');
const compiler = execFileSync('nvcc', ['--version'], { encoding: 'utf8' });

const files = positionals.length
  ? positionals.map((path) => relative('.', path))
  : flags.hot
    ? [...new Set(hot.map(({ file }) => file))]
    : readdirSync('native', { recursive: true })
        .filter((path) => path.endsWith('_cuda.cu'))
        .map((path) => join('native', path))
        .sort();
const results = flags.built
  ? files.map(fromBuild)
  : await inTurns(files, availableParallelism(), compile);

let failed = 0;
const rows = [];
for (const { file, text, counts, error } of results) {
  if (error) {
    failed++;
    console.error(`${file}: does not compile\n${text}`);
    continue;
  }
  const warnings = text.split('\n').filter((line) => /\bwarning\b/i.test(line));
  if (warnings.length) {
    failed++;
    console.error(`${file}: warnings\n${warnings.join('\n')}`);
  }
  for (const kernel of kernelsOf(text, counts)) {
    const rules = hot.filter((h) => h.file === file && h.pattern.test(kernel.name));
    for (const rule of rules) rule.matched = true;
    const lacks = rules.flatMap(({ wanted }) =>
      wanted.filter((kind) => kernel.counts && isIn(kind, kernel) && !kernel.counts[kind]),
    );
    const bad = [];
    if (rules.length && kernel.stack + kernel.spills > 0) bad.push('LOCAL MEMORY');
    if (lacks.length) bad.push(`NO ${lacks.join(', ')}`);
    if (bad.length) failed++;
    const note = bad.join(', ') || (rules.length ? 'hot' : '');
    rows.push({ ...kernel, ...described(kernel.counts), file: basename(file), note });
  }
}
print(merged(rows));
for (const { file, pattern, matched } of hot)
  if (!matched && files.includes(file) && !results.some((r) => r.file === file && r.error)) {
    failed++;
    console.error(`scripts/hot-kernels.txt: ${file} has no kernel that matches ${pattern.source}`);
  }
failed += checkSize();
const fresh = results.filter(({ compiled }) => compiled).length;
console.log(
  `check-cuda: ${rows.length} kernels of ${files.length} files (${fresh} compiled, ${files.length - fresh} unchanged), ${failed} failed`,
);
process.exit(failed ? 1 : 0);

/** Whether the built addon is larger than it may be, stripped: without kernels, with one architecture's, of a release. */
function checkSize() {
  const addon = 'build/Release/mixpl.node';
  if (!existsSync(addon)) return 0;
  const { cudaArchitectures } = createRequire(import.meta.url)(resolve(addon)).buildInfo();
  // MiB. A release is compressed.
  const architecturesOfRelease = code.join().match(/\bsm_\w+/g).length;
  const budget = { 0: 6, 1: 22, [architecturesOfRelease]: 24 }[cudaArchitectures.length];
  const stripped = join(kept, 'stripped.node');
  execFileSync('strip', ['-o', stripped, addon]);
  const size = statSync(stripped).size / 2 ** 20;
  rmSync(stripped);
  const kernels = cudaArchitectures.length
    ? `with code for ${cudaArchitectures}`
    : 'without kernels';
  console.log(`${addon}: ${size.toFixed(2)} of ${budget ?? 'any'} MiB, stripped, ${kernels}`);
  return budget && size > budget ? 1 : 0;
}

/** What ptxas said about a file when the addon was built. */
function fromBuild(file) {
  const report = join('build/CMakeFiles/mixpl_core.dir', `${file}.o.ptxas`);
  if (existsSync(report)) return { file, text: readFileSync(report, 'utf8'), compiled: false };
  const error = new Error(`there is no ${report}: build first, with MIXPL_CUDA=ON`);
  return { file, text: error.message, error, compiled: false };
}

/** What ptxas says about a file and what its PTX has: from the last time, when nothing that went into it has changed. */
async function compile(file) {
  const entries = code.filter((entry) => isChecked(file, entry));
  const args = [...options, ...entries.map((entry) => `--generate-code=${entry}`)];
  const name = `${file.replaceAll('/', '-')}${mode}`;
  const [depend, report, ptx, key] = ['d', 'ptxas', 'ptx.json', 'key'].map((end) =>
    join(kept, `${name}.${end}`),
  );
  const found = () => ({
    text: readFileSync(report, 'utf8'),
    counts: JSON.parse(readFileSync(ptx, 'utf8')),
  });
  if (
    [depend, report, ptx, key].every(existsSync) &&
    readFileSync(key, 'utf8') === digest(depend, args)
  )
    return { file, ...found(), compiled: false };
  rmSync(key, { force: true });
  const folder = mkdtempSync(join(kept, `${name}-`));
  try {
    args.push('--keep-dir', folder, '-MD', '-MF', depend, file, '-o', join(folder, 'fatbin'));
    const { stderr, stdout } = await promisify(execFile)('nvcc', args, { maxBuffer: 1 << 28 });
    writeFileSync(report, stdout + stderr);
    writeFileSync(ptx, JSON.stringify(countsIn(folder, entries)));
    writeFileSync(key, digest(depend, args.slice(0, options.length + entries.length)));
    return { file, ...found(), compiled: true };
  } catch (error) {
    return { file, text: `${error.stdout ?? ''}${error.stderr ?? error}`, error, compiled: true };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Instructions by kernel, by real architecture, of the PTX that nvcc has kept in a folder. */
function countsIn(folder, entries) {
  const files = readdirSync(folder).filter((name) => name.endsWith('.ptx'));
  return Object.fromEntries(
    entries.flatMap((entry) => {
      const [, virtual] = /arch=(\w+)/.exec(entry);
      const path = files.length === 1 ? files[0] : files.find((f) => f.includes(`.${virtual}.`));
      const kernels = countInstructions(readFileSync(join(folder, path), 'utf8'));
      return entry.match(/\bsm_\w+/g).map((real) => [real, kernels]);
    }),
  );
}

/** Of compiler, options and the sources below native/ that a dependency file names. */
function digest(depend, args) {
  const hash = createHash('sha256').update(compiler).update(args.join(' '));
  hash.update(readFileSync('scripts/ptx.mjs'));
  const sources = readFileSync(depend, 'utf8')
    .replace(/^[^:]*:/, '')
    .split(/[\s\\]+/)
    .filter((path) => path && relative('native', path).startsWith('..') === false);
  for (const path of new Set(sources))
    hash.update(path).update(existsSync(path) ? readFileSync(path) : 'gone');
  return hash.digest('hex');
}

/** Kernels in ptxas's report, by architecture, with what their PTX has. */
function kernelsOf(text, counts = {}) {
  const found = [];
  for (const part of text.split(/Compiling entry function /).slice(1)) {
    const [, name, architecture] = /^'(\S+)' for '(\S+)'/.exec(part) ?? [];
    const number = (pattern) => Number(pattern.exec(part)?.[1] ?? 0);
    found.push({
      name,
      architecture,
      counts: counts[architecture]?.find((kernel) => kernel.name === name)?.counts,
      registers: number(/Used (\d+) registers/),
      shared: number(/(\d+) bytes smem/),
      stack: number(/(\d+) bytes stack frame/),
      spills: number(/(\d+) bytes spill stores/) + number(/(\d+) bytes spill loads/),
    });
  }
  if (found.length === 0) return [];
  const names = execFileSync('c++filt', { input: found.map(({ name }) => name).join('\n') });
  const readable = names.toString().trim().split('\n');
  return found.map((kernel, i) => ({
    ...kernel,
    name: withoutArguments(
      readable[i].replaceAll(/\(anonymous namespace\)::|mixpl::(cuda::)?|^void /g, ''),
    ),
  }));
}

/** A name up to the parenthesis that its last one closes. */
function withoutArguments(name) {
  let depth = 0;
  for (let i = name.length - 1; i >= 0 && name.endsWith(')'); i--) {
    if (name[i] === ')') depth++;
    if (name[i] === '(' && --depth === 0) return name.slice(0, i);
  }
  return name;
}

/** Whether a kernel's code for its architecture could hold an instruction. */
function isIn(kind, { name, architecture }) {
  const warpgroups = /WarpgroupTile|Bulk\w*Tile/.test(name);
  if (kind === 'wgmma') return warpgroups && architecture === 'sm_90a';
  return !(warpgroups && /^mma|^ldmatrix/.test(kind));
}

/** Counts as columns: accesses to global memory of 16 bytes, those of fewer, tensor cores. */
function described(counts) {
  if (!counts) return {};
  const sum = (...kinds) => kinds.reduce((total, kind) => total + (counts[kind] ?? 0), 0);
  const tensor = Object.entries(counts).filter(([kind]) => /mma|ldmatrix/.test(kind));
  return {
    '16 bytes': sum('load16', 'store16', 'copy16'),
    narrower: sum('load', 'store', 'copy'),
    'tensor cores': tensor.map(([kind, count]) => `${count} ${kind}`).join(', '),
  };
}

/** A row for all architectures on which a kernel takes the same. */
function merged(rows) {
  const groups = new Map();
  for (const { counts, architecture, ...row } of rows) {
    const key = JSON.stringify(row);
    const group = groups.get(key);
    if (group) group.architecture += ` ${architecture.replace('sm_', '')}`;
    else groups.set(key, { ...row, architecture });
  }
  return [...groups.values()];
}

function print(rows) {
  const all = ['file', 'name', 'architecture', 'registers', 'shared', 'stack', 'spills'];
  all.push('16 bytes', 'narrower', 'tensor cores', 'note');
  const columns = all.filter((column) => rows.some((row) => column in row));
  const cells = [columns, ...rows.map((row) => columns.map((c) => String(row[c] ?? '')))];
  const widths = columns.map((_, i) =>
    Math.min(72, Math.max(...cells.map((row) => row[i].length))),
  );
  for (const row of cells)
    console.log(
      row
        .map((cell, i) => cell.slice(0, widths[i]).padEnd(widths[i]))
        .join('  ')
        .trimEnd(),
    );
}

/** f of each item, `limit` at a time; results in order. */
async function inTurns(items, limit, f) {
  const out = new Array(items.length);
  let next = 0;
  await Promise.all(
    Array.from({ length: Math.min(limit, items.length) }, async () => {
      while (next < items.length) {
        const i = next++;
        out[i] = await f(items[i]);
      }
    }),
  );
  return out;
}

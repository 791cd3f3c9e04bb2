// The work of scripts/check-cuda.sh.
import { execFile, execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
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

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: { built: { type: 'boolean' }, hot: { type: 'boolean' }, all: { type: 'boolean' } },
});
const kept = 'build/check-cuda';
mkdirSync(kept, { recursive: true });

const hot = readFileSync('scripts/hot-kernels.txt', 'utf8')
  .split('\n')
  .filter((line) => line.trim() && !line.startsWith('#'))
  .map((line) => {
    const [, file, pattern] = /^(\S+)\s+(.+?)\s*$/.exec(line) ?? [];
    if (!pattern) throw new Error(`scripts/hot-kernels.txt: not "file pattern": ${line}`);
    return { file: join('native', file), pattern: new RegExp(pattern), matched: false };
  });

// What a release has code for, from the one place that says it: "80-real 90a-real 120".
const [, release] = /MIXPL_RELEASE_ARCHITECTURES ([^)]+)/.exec(
  readFileSync('CMakeLists.txt', 'utf8'),
);
const architectures = (flags.all ? release.split(' ') : ['90a-real']).map((name) => {
  const number = name.replace('-real', '');
  const code = name === number ? `[sm_${number},compute_${number}]` : `sm_${number}`;
  return `-gencode=arch=compute_${number},code=${code}`;
});
// As CMakeLists.txt compiles them; what the host runs of a file is the build's to compile.
const options = ['-std=c++20', '-O3', '--expt-relaxed-constexpr', '--fmad=false', '-Inative'];
options.push('-DMIXPL_WITH_CUDA', '-DMIXPL_CUDA_ARCHITECTURE_LIST=""');
options.push('-Xptxas=-v', '-fatbin', ...architectures);
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
for (const { file, text, error } of results) {
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
  for (const kernel of kernelsOf(text)) {
    const rule = hot.find((h) => h.file === file && h.pattern.test(kernel.name));
    if (rule) rule.matched = true;
    const bad = rule && kernel.stack + kernel.spills > 0;
    if (bad) failed++;
    rows.push({ ...kernel, file: basename(file), note: bad ? 'LOCAL MEMORY' : rule ? 'hot' : '' });
  }
}
print(rows);
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

/** Whether the built addon is larger than it may be, stripped; without or with one architecture's kernels. */
function checkSize() {
  const addon = 'build/Release/mixpl.node';
  if (!existsSync(addon)) return 0;
  const { cudaArchitectures } = createRequire(import.meta.url)(resolve(addon)).buildInfo();
  const budget = { 0: 4, 1: 12.75 }[cudaArchitectures.length]; // MiB
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

/** What ptxas says about a file: from the last time, when nothing that went into it has changed. */
async function compile(file) {
  const name = `${file.replaceAll('/', '-')}${flags.all ? '-all' : ''}`;
  const [depend, report, key] = ['d', 'ptxas', 'key'].map((end) => join(kept, `${name}.${end}`));
  if ([depend, report, key].every(existsSync) && readFileSync(key, 'utf8') === digest(depend))
    return { file, text: readFileSync(report, 'utf8'), compiled: false };
  rmSync(key, { force: true });
  const object = join(kept, `${name}.fatbin`);
  try {
    const args = [...options, '-MD', '-MF', depend, file, '-o', object];
    const { stderr, stdout } = await promisify(execFile)('nvcc', args, { maxBuffer: 1 << 28 });
    const text = stdout + stderr;
    writeFileSync(report, text);
    writeFileSync(key, digest(depend));
    return { file, text, compiled: true };
  } catch (error) {
    return { file, text: `${error.stdout ?? ''}${error.stderr ?? error}`, error, compiled: true };
  } finally {
    rmSync(object, { force: true });
  }
}

/** Of compiler, options and the sources below native/ that a dependency file names. */
function digest(depend) {
  const hash = createHash('sha256').update(compiler).update(options.join(' '));
  const sources = readFileSync(depend, 'utf8')
    .replace(/^[^:]*:/, '')
    .split(/[\s\\]+/)
    .filter((path) => path && relative('native', path).startsWith('..') === false);
  for (const path of new Set(sources))
    hash.update(path).update(existsSync(path) ? readFileSync(path) : 'gone');
  return hash.digest('hex');
}

/** Kernels in ptxas's report, by architecture. */
function kernelsOf(text) {
  const found = [];
  for (const part of text.split(/Compiling entry function /).slice(1)) {
    const [, name, architecture] = /^'(\S+)' for '(\S+)'/.exec(part) ?? [];
    const number = (pattern) => Number(pattern.exec(part)?.[1] ?? 0);
    found.push({
      name,
      architecture,
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

function print(rows) {
  const columns = [
    'file',
    'name',
    'architecture',
    'registers',
    'shared',
    'stack',
    'spills',
    'note',
  ];
  const cells = [columns, ...rows.map((row) => columns.map((c) => String(row[c])))];
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

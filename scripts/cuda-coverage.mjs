// Prints which launches of CUDA kernels a run on the emulated device has made:
// `node scripts/cuda-coverage.mjs FILE [FOLDER]`, FILE as MIXPL_EMULATION_COVERAGE names it, FOLDER that
// holds native/. Every launch below native/ is a row, below it what its function was instantiated for; a
// launch that was never made ends the script with 1.
// Files that include core/cuda/bulk_copies.h use hardware that is not emulated: theirs are only listed.
// A helper that takes `std::source_location where` and hands it on is none: the calls of it are.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const [file, folder = '.'] = process.argv.slice(2);
const sources = readdirSync(join(folder, 'native'), { recursive: true })
  .filter((path) => /(\.h|_cuda\.cu)$/.test(path) && !path.endsWith('runtime_cuda.cu'))
  .sort()
  .map((path) => {
    const text = readFileSync(join(folder, 'native', path), 'utf8');
    const code = text.replaceAll(/\/\/.*$/gm, (comment) => ' '.repeat(comment.length));
    return { path: join('native', path), code };
  });
const handsOn = /\b([a-z]\w*)\s*\((?:[^(){};]|\([^(){};]*\))*std::source_location where/g;
const helpers = sources.flatMap(({ code }) => [...code.matchAll(handsOn)].map(([, name]) => name));
const calls = new RegExp(
  `(?<![\\w.]|std::|void )(${['launch', ...new Set(helpers)].join('|')})(<[^;()]*>)?\\s*\\(`,
  'g',
);
const sites = sources.flatMap(sitesOf);

// A process's counts only grow; the newest line of a place and function is the process's own total.
const totals = new Map();
for (const line of readFileSync(file, 'utf8').split('\n').filter(Boolean)) {
  const [process_, place, name, launches, threads] = line.split('\t');
  totals.set(`${process_} ${place} ${name}`, {
    place,
    of: instantiation(name),
    launches: +launches,
    threads: +threads,
  });
}
for (const { place, of, launches, threads } of totals.values()) {
  const [, path, line] = /(native\/.*):(\d+)$/.exec(place) ?? [];
  const site = sites.find((s) => s.path === path && line >= s.first && line <= s.last);
  if (!site) continue; // of a test
  const part = site.parts.get(of) ?? { launches: 0, threads: 0 };
  site.parts.set(of, {
    launches: part.launches + launches,
    threads: part.threads + threads,
  });
}

const rows = [['kernel', 'launches, at least', 'threads, at least', 'launched at']];
for (const { path, first, kernel, parts, emulated } of sites) {
  const sum = (key) => [...parts.values()].reduce((total, part) => total + part[key], 0);
  const place = `${path}:${first}`;
  rows.push(
    parts.size
      ? [kernel, sum('launches'), sum('threads'), place]
      : [kernel, emulated ? 'NEVER LAUNCHED' : 'on GPUs only', '', place],
  );
  for (const [of, { launches, threads }] of [...parts].sort(([a], [b]) => (a < b ? -1 : 1)))
    if (of) rows.push([`  ${of}`, launches, threads, '']);
}
const widths = [0, 1, 2].map((i) => Math.max(...rows.map((row) => String(row[i]).length)));
for (const [kernel, launches, threads, place] of rows)
  console.log(
    [
      kernel.padEnd(widths[0]),
      String(launches).padStart(widths[1]),
      String(threads).padStart(widths[2]),
      place,
    ]
      .join('  ')
      .trimEnd(),
  );
const expected = sites.filter(({ emulated }) => emulated);
const missed = expected.filter(({ parts }) => !parts.size).length;
const beyond = sites.length - expected.length;
console.log(
  `cuda coverage: ${expected.length - missed} of ${expected.length} launches were made${beyond ? `, ${beyond} cannot be emulated` : ''}`,
);
process.exit(missed ? 1 : 0);

/** Launches in a source file: their lines, and what they launch. */
function sitesOf({ path, code }) {
  const found = [];
  const emulated = !code.includes('#include "core/cuda/bulk_copies.h"');
  for (const match of code.matchAll(calls)) {
    const open = match.index + match[0].length;
    let depth = 1;
    let end = open;
    while (depth > 0 && end < code.length) {
      if (code[end] === '(') depth++;
      if (code[end] === ')') depth--;
      end++;
    }
    const args = code.slice(open, end - 1);
    if (/\bwhere\b/.test(args)) continue;
    const lineOf = (index) => code.slice(0, index).split('\n').length;
    const [kernel] = args.split(/,(?![^<]*>)|,\s*(?=\w+<)/);
    const [, name, of = ''] = match;
    found.push({
      path,
      first: lineOf(match.index),
      last: lineOf(end),
      kernel: oneLine(name === 'launch' ? kernel : `${name}${of}(${structOf(args)})`),
      parts: new Map(),
      emulated,
    });
  }
  return found;
}

/** The functor among the arguments, by its capital letter. */
function structOf(args) {
  return /\b[A-Z]\w+/.exec(args)?.[0] ?? args.split(',')[1]?.trim() ?? '';
}

/** What the template's parameters are in a function's name: `f(T) [with T = float]`. */
function instantiation(name) {
  const [, parameters = ''] = / \[with (.*)\]$/.exec(name) ?? [];
  return parameters
    .split('; ')
    .filter((parameter) => !/^\w+_t = /.test(parameter)) // of the standard library, not ours
    .map((parameter) => parameter.replace(/^.*? = /, ''))
    .join(', ')
    .replaceAll(/mixpl::|cuda::|\{anonymous\}::/g, '')
    .replaceAll(/std::integral_constant<int, (\d+)>/g, '$1');
}

function oneLine(text) {
  return text.trim().replaceAll(/\s+/g, ' ');
}

// Prints which launches of CUDA kernels a run on the emulated device has made:
// `node scripts/cuda-coverage.mjs FILE`, FILE as MIXPL_EMULATION_COVERAGE names it. Every launch in a
// *_cuda.cu file is a row; one that was never made ends the script with 1.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const calls = /(?<![\w.])(launch|for_each|reduce_sum|reduce_sum_rows)(<[^;()]*>)?\s*\(/g;
const sites = readdirSync('native', { recursive: true })
  .filter((path) => path.endsWith('_cuda.cu') && !path.endsWith('runtime_cuda.cu'))
  .sort()
  .flatMap((path) => sitesOf(join('native', path)));

// A process's counts only grow; the newest line of a place is the process's own total.
const totals = new Map();
for (const line of readFileSync(process.argv[2], 'utf8').split('\n').filter(Boolean)) {
  const [process_, place, , launches, threads] = line.split('\t');
  const [, file, row] = /(native\/.*):(\d+)$/.exec(place) ?? [];
  totals.set(`${process_} ${place}`, {
    file,
    line: Number(row),
    launches: +launches,
    threads: +threads,
  });
}
for (const { file, line, launches, threads } of totals.values()) {
  const site = sites.find((s) => s.file === file && line >= s.first && line <= s.last);
  if (!site) continue; // of a test, or of a helper
  site.launches += launches;
  site.threads += threads;
}
const width = Math.max(...sites.map(({ file, first }) => `${file}:${first}`.length));
const names = Math.max(...sites.map(({ kernel }) => kernel.length));
for (const { file, first, kernel, launches, threads } of sites)
  console.log(
    `${`${file}:${first}`.padEnd(width)}  ${kernel.padEnd(names)}  ${
      launches ? `${launches}+ launches, ${threads}+ threads` : 'NEVER LAUNCHED'
    }`,
  );
const missed = sites.filter(({ launches }) => launches === 0).length;
console.log(`cuda coverage: ${sites.length - missed} of ${sites.length} launches were made`);
process.exit(missed ? 1 : 0);

/** Launches in a source file: their lines, and what they launch. */
function sitesOf(file) {
  const text = readFileSync(file, 'utf8').replaceAll(/\/\/.*$/gm, (comment) =>
    ' '.repeat(comment.length),
  );
  return [...text.matchAll(calls)].map((match) => {
    const open = match.index + match[0].length;
    let depth = 1;
    let end = open;
    while (depth > 0 && end < text.length) {
      if (text[end] === '(') depth++;
      if (text[end] === ')') depth--;
      end++;
    }
    const lineOf = (index) => text.slice(0, index).split('\n').length;
    const [kernel] = text.slice(open, end - 1).split(/,(?![^<]*>)|,\s*(?=\w+<)/);
    return {
      file,
      first: lineOf(match.index),
      last: lineOf(end),
      kernel:
        match[1] === 'launch'
          ? kernel.trim().replaceAll(/\s+/g, ' ')
          : `${match[1]}(${structOf(text.slice(open, end - 1))})`,
      launches: 0,
      threads: 0,
    };
  });
}

/** The functor among the arguments, by its capital letter. */
function structOf(args) {
  return /\b[A-Z]\w+/.exec(args)?.[0] ?? args.split(',')[1]?.trim() ?? '';
}

// The BCCD tables of the README: `node scripts/experiments/bccd.mjs DATA [OUT] [options]`. DATA is the
// data set's folder (VOC layout). Runs every row through `mixpl train`, N at a time on one thread each,
// resuming what was stopped, then prints the table. --table only prints what OUT holds.
//   --jobs N            runs at a time (2)
//   --detectors a,b,…   instead of RetinaNet's table: those detectors at 10%, supervised and MixPL
//   --iterations N      of each run (what the preset says); two fifths of them are burn-in
//   --only TEXT         rows whose folder's name has this in it
//   --set KEY=VALUE     changes an option of every run; may be repeated (give another OUT)
import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    jobs: { type: 'string', default: '2' },
    table: { type: 'boolean', default: false },
    detectors: { type: 'string' },
    iterations: { type: 'string' },
    only: { type: 'string', default: '' },
    set: { type: 'string', multiple: true, default: [] },
  },
});
const [data, out = 'runs/bccd'] = positionals;
const cli = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

const methods = ['supervised', 'mean-teacher', 'mixpl'];
const run = (name, percent, fold, settings, preset = 'small') => ({
  name,
  percent,
  fold,
  settings,
  preset,
});
const method = (m, percent, fold) => run(m, percent, fold, [`semi.method=${m}`]);
const detectorRuns = (type) =>
  ['supervised', 'mixpl'].map((m) =>
    run(`${type} ${m}`, 10, 1, [`semi.method=${m}`], `small-${type}`),
  );
/** In the order in which they matter. */
const retinaNetRuns = [
  ...methods.map((m) => method(m, 5, 1)),
  run('all labels', 100, 1, ['semi.method=supervised']),
  ...methods.map((m) => method(m, 5, 2)),
  ...methods.map((m) => method(m, 5, 3)),
  ...['supervised', 'mixpl'].flatMap((m) => [method(m, 10, 1), method(m, 2, 1)]),
  run('mixpl without mixup', 5, 1, ['semi.mixup=false']),
  run('mixpl without mosaic', 5, 1, ['semi.mosaic=false']),
  run('mixpl with resampling', 5, 1, ['semi.resampling.threshold=1']),
  run('mixpl without the empty-image rule', 5, 1, ['semi.leastNum=0']),
  ...[10, 2].map((percent) => method('mean-teacher', percent, 1)),
];
const folderOf = ({ name, percent, fold }) =>
  join(out, `${percent}-${fold}-${name.replaceAll(' ', '-')}`);
const runs = (values.detectors?.split(',').flatMap(detectorRuns) ?? retinaNetRuns).filter((entry) =>
  folderOf(entry).includes(values.only),
);

function train(entry) {
  const { percent, fold, settings, preset } = entry;
  const options = ['threads=1', ...settings, ...values.set];
  if (values.iterations) {
    const iterations = Number(values.iterations);
    options.push(
      `schedule.iterations=${iterations}`,
      `semi.burnIn=${Math.round(iterations * 0.4)}`,
    );
  }
  mkdirSync(out, { recursive: true });
  const config = `${folderOf(entry)}.yaml`;
  writeFileSync(
    config,
    `extends: ${preset}
name: bccd
data:
  root: ${JSON.stringify(resolve(data))}
  labelled: { format: voc, imageSet: trainval }
  test: { format: voc, imageSet: test }
  split: { percent: ${percent}, fold: ${fold} }
`,
  );
  const args = ['train', config, '--out', folderOf(entry), '--resume'];
  const child = spawn(
    process.execPath,
    [cli, ...args, ...options.flatMap((option) => ['--set', option])],
    { env: { ...process.env, OMP_NUM_THREADS: '1' }, stdio: ['ignore', 'ignore', 'pipe'] },
  );
  let last = '';
  child.stderr.setEncoding('utf8').on('data', (text) => {
    last = text;
  });
  return new Promise((resolve, reject) =>
    child.on('close', (code) =>
      code === 0 ? resolve() : reject(new Error(`${folderOf(entry)}: ${last}`)),
    ),
  );
}

/** What the last validation of a run says; undefined when it has not ended. */
function resultOf(entry) {
  let text;
  try {
    text = readFileSync(join(folderOf(entry), 'metrics.jsonl'), 'utf8');
  } catch {
    return undefined;
  }
  const validations = text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line))
    .filter(({ type }) => type === 'validation');
  const last = validations.at(-1);
  return last && { iteration: last.iteration, ...(last.teacher ?? last.student) };
}

function printTable() {
  console.log('| labels | method | fold | iterations | AP | AP50 | AP75 | AP of each class |');
  console.log('|---|---|---|---|---|---|---|---|');
  for (const entry of runs) {
    const result = resultOf(entry);
    const classes = Object.entries(result?.perClass ?? {}).map(
      ([name, ap]) => `${name} ${ap?.toFixed(3) ?? '-'}`,
    );
    const cells = result
      ? [
          result.iteration,
          ...['AP', 'AP50', 'AP75'].map((name) => result[name].toFixed(3)),
          classes.join(', '),
        ]
      : ['-', '-', '-', '-', '-'];
    console.log(`| ${[`${entry.percent}%`, entry.name, entry.fold, ...cells].join(' | ')} |`);
  }
  for (const m of methods) {
    const aps = [1, 2, 3].map((fold) => resultOf(method(m, 5, fold))?.AP);
    if (aps.some((ap) => ap === undefined)) continue;
    const mean = aps.reduce((sum, ap) => sum + ap, 0) / 3;
    const spread = Math.sqrt(aps.reduce((sum, ap) => sum + (ap - mean) ** 2, 0) / 2);
    console.log(`5%, ${m}: AP ${mean.toFixed(3)} ± ${spread.toFixed(3)} over three folds`);
  }
}

if (data === undefined) {
  console.error('usage: node scripts/experiments/bccd.mjs DATA [OUT] [--jobs N] [--table]');
  process.exit(2);
}
if (!values.table) {
  const queue = [...runs];
  const worker = async () => {
    for (let entry = queue.shift(); entry; entry = queue.shift()) {
      await train(entry);
      console.error(`${folderOf(entry)}: AP ${resultOf(entry)?.AP.toFixed(3)}`);
    }
  };
  await Promise.all(Array.from({ length: Number(values.jobs) }, worker));
}
printTable();

// Each detector learns eight images by heart: `node scripts/experiments/overfit.mjs DATA [OUT] [options]`. DATA is
// BCCD's folder (VOC layout). Trains the small network of each detector on eight of its images, as they
// are, and prints AP and AP50 on the same eight; ends with 1 unless every AP50 is above 0.95.
//   --detectors a,b,…   these only
//   --iterations N      of each (600)
//   --threads N         of each (2)
//   --table             only prints what OUT holds
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    detectors: {
      type: 'string',
      default:
        'retinanet,fcos,centernet,atss,gfl,paa,tood,faster-rcnn,cascade-rcnn,sparse-rcnn,deformable-detr,dab-detr,dino',
    },
    iterations: { type: 'string', default: '600' },
    threads: { type: 'string', default: '2' },
    table: { type: 'boolean', default: false },
  },
});
const [data, out = 'runs/overfit'] = positionals;
if (data === undefined) {
  console.error('usage: node scripts/experiments/overfit.mjs DATA [OUT] [options]');
  process.exit(2);
}
const cli = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const detectors = values.detectors.split(',');

function mixpl(...args) {
  const environment = { ...process.env, OMP_NUM_THREADS: values.threads };
  const child = spawnSync(process.execPath, [cli, ...args], {
    env: environment,
    encoding: 'utf8',
  });
  if (child.status !== 0) throw new Error(`mixpl ${args.join(' ')}: ${child.stderr.slice(-2000)}`);
  return child.stdout;
}

function train(type) {
  const config = join(out, `${type}.yaml`);
  const eight = `{ format: coco, annotations: ${JSON.stringify(resolve(split.labelled.file))}, images: ${JSON.stringify(join(resolve(data), 'JPEGImages'))} }`;
  const asTheyAre = '{ resize: { long: 320, short: [240, 240] }, flip: 0, color: [] }';
  writeFileSync(
    config,
    `extends: ${type === 'retinanet' ? 'small' : `small-${type}`}
name: overfit-${type}
data:
  labelled: ${eight}
  test: ${eight}
augment:
  labelled: ${asTheyAre}
semi: { method: supervised }
schedule: { iterations: ${values.iterations} }
validation: { interval: 100, batch: 8 }
checkpoint: { interval: ${values.iterations} }
threads: ${values.threads}
`,
  );
  mixpl('train', config, '--out', join(out, type), '--resume');
}

/** The last validation. */
function resultOf(type) {
  const lines = readFileSync(join(out, type, 'metrics.jsonl'), 'utf8')
    .trim()
    .split('\n');
  const validations = lines.map((line) => JSON.parse(line)).filter((l) => l.type === 'validation');
  const last = validations.at(-1);
  const reached = validations.find(({ student }) => student.AP50 > 0.95)?.iteration;
  return { iterations: last.iteration, reached, ...last.student };
}

mkdirSync(out, { recursive: true });
// 8 of the 292 images of trainval.
const percent = String((100 * 8) / 292);
const split = JSON.parse(
  mixpl(
    'data',
    'split',
    data,
    '--image-set',
    'trainval',
    '--percent',
    percent,
    '--out',
    out,
    '--json',
  ),
);
console.log('| detector | iterations | AP | AP50 | AP50 > 0.95 first seen at |');
console.log('|---|---|---|---|---|');
let failed = false;
for (const type of detectors) {
  if (!values.table) train(type);
  const { iterations, AP, AP50, reached = '-' } = resultOf(type);
  console.log(`| ${type} | ${iterations} | ${AP.toFixed(3)} | ${AP50.toFixed(3)} | ${reached} |`);
  failed ||= !(AP50 > 0.95);
}
process.exit(failed ? 1 : 0);

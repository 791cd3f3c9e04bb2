#!/usr/bin/env bash
# Tries a package as its users would: installs build/package/mixpl-VERSION.tgz (or the one named) into a new folder,
# checks that its own libraries are loaded, trains a step, runs the command line and checks the types.
set -euo pipefail
cd "$(dirname "$0")/.."
checkout=$PWD
package=$(realpath "${1:-build/package/mixpl-$(node -p "require('./package.json').version").tgz}")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset MIXPL_ADDON
cat >package.json <<'JSON'
{ "name": "user", "private": true, "type": "module" }
JSON
npm install --no-audit --no-fund --loglevel=error "$package"

cat >step.mts <<'TS'
import { readFileSync } from 'node:fs';
import { createDetector, type DetectorOptions, type DetectorRuntime } from 'mixpl';
import { boxIou } from 'mixpl/kernels';

const options: DetectorOptions & DetectorRuntime = {
  type: 'retinanet',
  numClasses: 2,
  device: 'cpu',
  backbone: { depth: 18, norm: 'gn', frozenStages: -1 },
};
const detector = await createDetector(options);
const image = { data: new Uint8Array(96 * 128 * 3).fill(100), height: 96, width: 128 };
const boxes = Float32Array.of(20, 20, 80, 70);
const losses = await detector.loss([image], [{ boxes, labels: Int32Array.of(1) }]);
await detector.backward();
const { gradNorm } = await detector.step({ lr: 1e-3 });
const [found] = await detector.predict([image]);
const iou = await boxIou(boxes, boxes);
for (const value of [...Object.values(losses), gradNorm, found!.scores.length])
  if (!Number.isFinite(value)) throw new Error(`not finite: ${JSON.stringify({ losses, gradNorm })}`);
console.log('a step:', losses, { gradNorm }, iou);
const own = new URL('node_modules/mixpl/prebuilds/', import.meta.url).pathname;
const libraries = new Set(readFileSync('/proc/self/maps', 'utf8').match(/\/\S*(mixpl\.|dnnl|gomp)\S*/g));
for (const path of libraries) if (!path.startsWith(own)) throw new Error(`${path} is not the package's`);
if (libraries.size < 3) throw new Error(`loaded: ${[...libraries].join(', ')}`);
TS
mkdir -p node_modules/@types
cp -r "$checkout"/node_modules/@types/node node_modules/@types/
cp -r "$checkout"/node_modules/undici-types node_modules/
"$checkout"/node_modules/.bin/tsc --strict --target es2022 --module nodenext --outDir . step.mts
node step.mjs
# Two processes need the plug-in for Gloo and what it needs.
cat >processes.mjs <<'JS'
import { readFileSync } from 'node:fs';
import { createDetector, startProcesses } from 'mixpl';

const group = await startProcesses({ processes: 2 });
const backbone = { depth: 18, norm: 'gn', frozenStages: -1 };
const detector = await createDetector({ type: 'retinanet', numClasses: 2, device: 'cpu', backbone });
const image = { data: new Uint8Array(96 * 128 * 3).fill(100 * group.rank), height: 96, width: 128 };
await detector.loss([image], [{ boxes: Float32Array.of(20, 20, 80, 70), labels: Int32Array.of(1) }]);
await detector.backward({ weight: 1 / group.processes });
await detector.sumGradients(group);
const norms = await group.allGather((await detector.step({ lr: 1e-3 })).gradNorm);
if (norms[0] !== norms[1] || !(norms[0] > 0)) throw new Error(`norms ${norms}`);
const own = new URL('node_modules/mixpl/prebuilds/', import.meta.url).pathname;
for (const path of new Set(readFileSync('/proc/self/maps', 'utf8').match(/\/\S*(gloo|hiredis|ibverbs|libnl)\S*/g)))
  if (!path.startsWith(own)) throw new Error(`${path} is not the package's`);
console.log('two processes:', norms);
await group.close();
JS
node processes.mjs
npx --no-install mixpl doctor
npx --no-install mixpl config small --set model.numClasses=2 >/dev/null
echo "package: $(basename "$package") works in a new folder"

/** Objects and queries of a DINO step, matched: four images, six layers of the decoder and the encoder's choice. */
import { type BenchCase, sizeOf } from '../case.js';
import { boxesIn, intsOf, RepeatedNoise, tensorOf } from '../data.js';
import { opCase } from '../op-case.js';

const [layers, images, queries, objects, classes] = [7, 4, 900, 50, 80];
const [height, width] = [800, 1344];
const problems = layers * images;

export const matchQueries: BenchCase = {
  name: 'match-queries',
  shape: `${objects} objects, ${queries} queries, ${images} images, ${layers} layers; labels checked on the host`,
  dtypes: ['f32', 'bf16'],
  // Per query its box, a logit an object, and what is written: label, box, weight, object.
  bytes: (dtype) => problems * queries * (16 + objects * sizeOf(dtype) + 28),
  peer: { op: 'match-queries', layers, images, queries, objects, classes },
  async prepare(context) {
    const f32 = { ...context, dtype: 'f32' as const };
    const logits = Array.from({ length: layers }, (_, l) => new RepeatedNoise(4, l + 1));
    const centres = Array.from({ length: layers }, (_, l) =>
      Float32Array.from({ length: images }, (_, n) => 10 * l + n + 1).reduce<Float32Array>(
        (all, seed, n) => {
          all.set(centred(boxesIn(queries, width, height, seed)), 4 * queries * n);
          return all;
        },
        new Float32Array(4 * queries * images),
      ),
    );
    const truth = Array.from({ length: images }, (_, n) => ({
      boxes: boxesIn(objects, width, height, 100 + n),
      labels: Int32Array.from({ length: objects }, (_, i) => (7 * i + n) % classes),
    }));
    const sizes = Float32Array.from({ length: 2 * images }, (_, i) => (i % 2 ? width : height));
    return opCase(
      {
        op: 'matchQueries',
        inputs: [
          tensorOf(sizes, [images, 2], f32),
          ...logits.flatMap((noise, l) => [
            noise.tensor([images, queries, classes], context),
            tensorOf(centres[l]!, [images, queries, 4], f32),
          ]),
          ...truth.flatMap(({ boxes, labels }) => [
            tensorOf(boxes, [objects, 4], f32),
            intsOf(labels, [objects], context.device),
          ]),
        ],
        options: { layers },
        async check(outputs) {
          // Of one problem a layer, each of another image.
          for (let l = 0; l < layers; l++) {
            const n = l % images;
            const chosen = ((await outputs[5 * l + 3]!.read()) as Int32Array).subarray(
              n * queries,
              (n + 1) * queries,
            );
            const owners = new Map<number, number>();
            chosen.forEach((object, query) => {
              if (object >= 0) owners.set(object - n * objects, query);
            });
            if (
              owners.size !== objects ||
              chosen.filter((object) => object >= 0).length !== objects
            )
              throw new Error(`layer ${l}: ${owners.size} objects of ${objects} have a query`);
            const { boxes, labels } = truth[n]!;
            const own = centres[l]!.subarray(4 * queries * n, 4 * queries * (n + 1));
            const cost = (object: number, query: number) =>
              costOf(
                logits[l]!.at((n * queries + query) * classes + labels[object]!),
                own.subarray(4 * query, 4 * query + 4),
                boxes.subarray(4 * object, 4 * object + 4),
              );
            const got = [...owners].reduce((sum, [object, query]) => sum + cost(object, query), 0);
            const want = leastCost(objects, queries, cost);
            if (!(Math.abs(got - want) < 1e-3))
              throw new Error(`layer ${l}: the matching costs ${got}, the best ${want}`);
          }
        },
      },
      context,
    );
  },
};

/** (x1, y1, x2, y2) in pixels as (cx, cy, w, h) in shares. */
function centred(boxes: Float32Array): Float32Array {
  const out = new Float32Array(boxes.length);
  for (let i = 0; i < boxes.length; i += 4) {
    const [x1, y1, x2, y2] = boxes.subarray(i, i + 4) as unknown as [
      number,
      number,
      number,
      number,
    ];
    out.set([(x1 + x2) / 2 / width, (y1 + y2) / 2 / height], i);
    out.set([(x2 - x1) / width, (y2 - y1) / height], i + 2);
  }
  return out;
}

/** Focal, L1 and GIoU costs of weights 2, 5 and 2. */
function costOf(logit: number, query: Float32Array, object: Float32Array): number {
  const p = 1 / (1 + Math.exp(-logit));
  const focal =
    0.25 * (1 - p) ** 2 * -Math.log(p + 1e-12) - 0.75 * p ** 2 * -Math.log(1 - p + 1e-12);
  const l1 = centred(object).reduce((sum, v, i) => sum + Math.abs(v - query[i]!), 0);
  const [cx, cy, w, h] = query as unknown as [number, number, number, number];
  const a = [
    (cx - w / 2) * width,
    (cy - h / 2) * height,
    (cx + w / 2) * width,
    (cy + h / 2) * height,
  ];
  const area = (b: ArrayLike<number>) => (b[2]! - b[0]!) * (b[3]! - b[1]!);
  const side = (low: number, high: number) => Math.max(0, high - low);
  const inside =
    side(Math.max(a[0]!, object[0]!), Math.min(a[2]!, object[2]!)) *
    side(Math.max(a[1]!, object[1]!), Math.min(a[3]!, object[3]!));
  const hull =
    side(Math.min(a[0]!, object[0]!), Math.max(a[2]!, object[2]!)) *
    side(Math.min(a[1]!, object[1]!), Math.max(a[3]!, object[3]!));
  const union = area(a) + area(object) - inside;
  return 2 * focal + 5 * l1 - 2 * (inside / union - (hull - union) / hull);
}

/** Of an assignment of all rows to columns of their own, by shortest augmenting paths. */
function leastCost(
  rows: number,
  columns: number,
  cost: (row: number, column: number) => number,
): number {
  // Row and column 0 stand for none.
  const u = new Float64Array(rows + 1);
  const v = new Float64Array(columns + 1);
  const owner = new Int32Array(columns + 1);
  for (let row = 1; row <= rows; row++) {
    const least = new Float64Array(columns + 1).fill(Infinity);
    const before = new Int32Array(columns + 1);
    const done = new Uint8Array(columns + 1);
    owner[0] = row;
    let column = 0;
    while (owner[column] !== 0) {
      done[column] = 1;
      const from = owner[column]!;
      let [next, step] = [0, Infinity];
      for (let j = 1; j <= columns; j++) {
        if (done[j]) continue;
        const reduced = cost(from - 1, j - 1) - u[from]! - v[j]!;
        if (reduced < least[j]!) [least[j], before[j]] = [reduced, column];
        if (least[j]! < step) [step, next] = [least[j]!, j];
      }
      for (let j = 0; j <= columns; j++)
        if (done[j]) {
          u[owner[j]!]! += step;
          v[j]! -= step;
        } else least[j]! -= step;
      column = next;
    }
    while (column !== 0) {
      owner[column] = owner[before[column]!]!;
      column = before[column]!;
    }
  }
  let total = 0;
  for (let j = 1; j <= columns; j++) if (owner[j]) total += cost(owner[j]! - 1, j - 1);
  return total;
}

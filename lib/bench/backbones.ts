/** Layers of backbones, and of the pyramid over them. */
import { type FeatureMap, half, type Walk } from './layers.js';

/** Stem and first stage frozen. @returns C2 to C5 */
export function resnet50(walk: Walk, height: number, width: number): FeatureMap[] {
  walk.frozen = true;
  let x = walk.conv([3, height, width], 64, 7, { stride: 2 });
  const pooled: FeatureMap = [64, half(x[1]), half(x[2])];
  walk.move(x[0] * x[1] * x[2], pooled[0] * pooled[1] * pooled[2]);
  x = pooled;
  return [3, 4, 6, 3].map((blocks, stage) => {
    walk.frozen = stage === 0;
    const middle = 64 * 2 ** stage;
    for (let block = 0; block < blocks; block++) {
      const stride = stage > 0 && block === 0 ? 2 : 1;
      const dx = !(stage === 1 && block === 0); // nothing below is trained
      const inner = walk.conv(x, middle, 1, { dx });
      const out = walk.conv(walk.conv(inner, middle, 3, { stride }), 4 * middle, 1, {
        residual: true,
      });
      if (block === 0) walk.conv(x, 4 * middle, 1, { stride, dx });
      x = out;
    }
    return x;
  });
}

export interface SwinShape {
  embed: number;
  depths: readonly number[];
  heads: readonly number[];
  window: number;
  /** Of the levels that are asked for: the others have no norm. */
  firstLevel: 2 | 3;
}

/** All trained. @returns C2 to C5 */
export function swin(
  walk: Walk,
  [height, width]: readonly [number, number],
  { embed, depths, heads, window, firstLevel }: SwinShape,
): FeatureMap[] {
  const image: FeatureMap = [3, height, width];
  let [c, h, w] = walk.conv(image, embed, 4, { stride: 4, dx: false, relu: false });
  walk.norm(c * h * w);
  return depths.map((blocks, stage) => {
    if (stage > 0) {
      [h, w] = [half(h), half(w)];
      walk.norm(4 * c * h * w); // four neighbours side by side
      walk.linear(h * w, 4 * c, 2 * c);
      c *= 2;
    }
    const tokens = h * w;
    // Windows are whole: what hangs over the edge is computed, too.
    const padded = Math.ceil(h / window) * Math.ceil(w / window) * window ** 2;
    for (let block = 0; block < blocks; block++) {
      walk.norm(tokens * c);
      walk.linear(padded, c, 3 * c);
      walk.attention(padded, window ** 2, c, { sources: padded });
      walk.table((2 * window - 1) ** 2 * heads[stage]!);
      walk.linear(padded, c, c, { residual: true });
      walk.norm(tokens * c);
      walk.linear(tokens, c, 4 * c);
      walk.keep(tokens * 4 * c); // for the GELU
      walk.linear(tokens, 4 * c, c, { residual: true });
    }
    if (stage + 2 >= firstLevel) walk.norm(tokens * c);
    return [c, h, w] as const;
  });
}

export function pyramid(walk: Walk, stages: readonly FeatureMap[]): FeatureMap[] {
  const laterals = stages.map((stage, i) =>
    walk.conv(stage, 256, 1, { residual: i < stages.length - 1 }),
  );
  return laterals.map((lateral) => walk.conv(lateral, 256, 3));
}

/** Layers of the heads over a pyramid. */
import { type FeatureMap, half, placesOf, type Walk } from './layers.js';

export function denseHead(
  walk: Walk,
  levels: readonly FeatureMap[],
  { fcos, classes }: { fcos: boolean; classes: number },
): void {
  const anchors = fcos ? 1 : 9;
  levels.forEach((level, i) => {
    const shared = i > 0;
    const places = placesOf(level);
    for (let branch = 0; branch < 2; branch++)
      for (let k = 0; k < 4; k++) {
        walk.conv(level, 256, 3, { shared });
        if (fcos) walk.move(256 * places, 256 * places); // GroupNorm
      }
    walk.conv(level, classes * anchors, 3, { shared });
    walk.conv(level, fcos ? 5 : 4 * anchors, 3, { shared }); // with centre-ness
    walk.move(places * anchors * (classes + (fcos ? 5 : 4)), 0); // losses
  });
}

/** Four points a sample. */
const roiAlign = (walk: Walk, rois: number) => walk.move(rois * 49 * 256 * 4, rois * 49 * 256);

export function twoStageHead(
  walk: Walk,
  pyramid: readonly FeatureMap[],
  { classes, rois }: { classes: number; rois: number },
): void {
  const [c, h, w] = pyramid.at(-1)!;
  const levels: FeatureMap[] = [...pyramid, [c, half(h), half(w)]];
  levels.forEach((level, i) => {
    const shared = i > 0;
    walk.conv(level, 256, 3, { shared });
    walk.conv(level, 15, 1, { shared });
  });
  roiAlign(walk, rois);
  walk.linear(rois, 256 * 49, 1024, { relu: true });
  walk.linear(rois, 1024, 1024, { relu: true });
  walk.linear(rois, 1024, classes + 1);
  walk.linear(rois, 1024, classes * 4);
  const anchors = levels.reduce((sum, level) => sum + 3 * placesOf(level), 0);
  walk.move(5 * anchors + rois * (5 * classes + 1), 0); // losses
}

/** Sparse R-CNN's stages: attention among proposals, filters of their own, and what they say of boxes. */
export function dynamicHead(
  walk: Walk,
  { classes, training }: { classes: number; training: boolean },
): void {
  const [rows, places, c, inner, stages] = [100, 49, 256, 64, 6];
  walk.table(rows * (4 + c));
  const normed = (count: number) => {
    for (let i = 0; i < count; i++) {
      walk.linear(rows, c, c);
      walk.norm(rows * c);
    }
  };
  for (let stage = 0; stage < stages; stage++) {
    roiAlign(walk, rows);
    walk.linear(rows, c, 3 * c);
    walk.attention(rows, rows, c);
    walk.linear(rows, c, c);
    walk.norm(rows * c, { residual: true });
    walk.linear(rows, c, 2 * c * inner);
    walk.matmul(rows, places, c, inner);
    walk.norm(rows * places * inner);
    walk.matmul(rows, places, inner, c);
    walk.norm(rows * places * c);
    walk.linear(rows, places * c, c);
    walk.norm(rows * c);
    walk.norm(rows * c, { residual: true });
    walk.linear(rows, c, 2048, { relu: true });
    walk.linear(rows, 2048, c);
    walk.norm(rows * c, { residual: true });
    if (training || stage === stages - 1) {
      normed(1);
      walk.linear(rows, c, classes);
    }
    normed(3);
    walk.linear(rows, c, 4);
  }
}

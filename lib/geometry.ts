/** Row-major 3×3 homography acting on column vectors (x, y, 1); continuous coordinates, pixel (i, j) covers [j, j+1) × [i, i+1). */
export type Matrix3 = readonly [
  number,
  number,
  number,
  number,
  number,
  number,
  number,
  number,
  number,
];

/** The map that moves nothing. */
export const identity3: Matrix3 = [1, 0, 0, 0, 1, 0, 0, 0, 1];

/** a · b: first b, then a. */
export function multiply3(a: Matrix3, b: Matrix3): Matrix3 {
  const out = new Array<number>(9);
  for (let r = 0; r < 3; r++)
    for (let c = 0; c < 3; c++)
      out[3 * r + c] = a[3 * r]! * b[c]! + a[3 * r + 1]! * b[3 + c]! + a[3 * r + 2]! * b[6 + c]!;
  return out as unknown as Matrix3;
}

/** Inverse by cofactors; throws RangeError on a singular matrix. */
export function invert3(m: Matrix3): Matrix3 {
  const [a, b, c, d, e, f, g, h, i] = m;
  const A = e * i - f * h;
  const B = f * g - d * i;
  const C = d * h - e * g;
  const determinant = a * A + b * B + c * C;
  if (!(Math.abs(determinant) > 1e-12)) throw new RangeError(`invert3: matrix is singular: ${m}`);
  const s = 1 / determinant;
  return [
    A * s,
    (c * h - b * i) * s,
    (b * f - c * e) * s,
    B * s,
    (a * i - c * g) * s,
    (c * d - a * f) * s,
    C * s,
    (b * g - a * h) * s,
    (a * e - b * d) * s,
  ];
}

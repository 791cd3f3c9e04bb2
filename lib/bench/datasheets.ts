/** What vendors say of their GPUs: peaks without sparsity, products of bf16 summed in f32. */

export interface Datasheet {
  /** Which product's. */
  name: string;
  /** Bytes per second. */
  bandwidth: number;
  /** Operations per second: of tensor cores in bf16, of the others in f32. */
  flops: Record<'f32' | 'bf16', number>;
}

/** Names as the driver gives them: other cards of a family have other clocks. */
const sheets: readonly [name: RegExp, product: string, tera: [number, number, number]][] = [
  // bandwidth TB/s, f32 TFLOP/s, bf16 TFLOP/s
  [/H200 NVL$/, 'H200 NVL', [4.8, 60, 835.5]],
  [/H200$/, 'H200 SXM', [4.8, 66.9, 989.4]],
  [/H100 PCIe$/, 'H100 PCIe', [2.039, 51.2, 756]],
  [/H100 NVL$/, 'H100 NVL', [3.9, 60, 835.5]],
  [/H100 80GB HBM3$/, 'H100 SXM', [3.35, 66.9, 989.4]],
  [/A100-SXM4-80GB$/, 'A100 80 GB SXM', [2.039, 19.5, 312]],
  [/A100 80GB PCIe$/, 'A100 80 GB PCIe', [1.935, 19.5, 312]],
  [/A100-(SXM4|PCIE)-40GB$/, 'A100 40 GB', [1.555, 19.5, 312]],
  [/L40S$/, 'L40S', [0.864, 91.6, 362.05]],
  [/GeForce RTX 4090$/, 'RTX 4090', [1.008, 82.6, 165.2]],
  [/GeForce RTX 3090$/, 'RTX 3090', [0.936, 35.6, 71]],
];

/** Undefined for a GPU that is not in the list. */
export function datasheetOf(device: string): Datasheet | undefined {
  const found = sheets.find(([name]) => name.test(device));
  if (!found) return undefined;
  const [, name, [bandwidth, f32, bf16]] = found;
  return { name, bandwidth: bandwidth * 1e12, flops: { f32: f32 * 1e12, bf16: bf16 * 1e12 } };
}

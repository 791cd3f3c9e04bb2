import { rangesInTurns, unsetFloats } from './turns.js';

/** Types of numbers in weights files, named as safetensors names them, and their bytes. */
export const elementSizes = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U8: 1,
  BOOL: 1,
} as const;

export type ElementType = keyof typeof elementSizes;

export function isElementType(name: unknown): name is ElementType {
  return typeof name === 'string' && Object.hasOwn(elementSizes, name);
}

/**
 * Little-endian numbers as f32, rounded where f32 is coarser. F32 shares the bytes where their
 * alignment allows it.
 * @param bytes a whole number of elements
 */
export async function toFloat32(bytes: Uint8Array, type: ElementType): Promise<Float32Array> {
  const size = elementSizes[type];
  const aligned = bytes.byteOffset % size === 0 ? bytes : Uint8Array.from(bytes);
  if (type === 'F32') return converted(aligned, type);
  const count = aligned.byteLength / size;
  const out = unsetFloats(count);
  for await (const [from, to] of rangesInTurns(count))
    out.set(converted(aligned.subarray(from * size, to * size), type), from);
  return out;
}

function converted(aligned: Uint8Array, type: ElementType): Float32Array {
  const { buffer, byteOffset: at } = aligned;
  const count = aligned.byteLength / elementSizes[type];
  switch (type) {
    case 'F32':
      return new Float32Array(buffer, at, count);
    case 'F64':
      return Float32Array.from(new Float64Array(buffer, at, count));
    case 'F16':
      return halvesToFloat32(new Uint16Array(buffer, at, count));
    case 'BF16':
      return new Float32Array(
        Uint32Array.from(new Uint16Array(buffer, at, count), (h) => h << 16).buffer,
      );
    case 'I64':
      return Float32Array.from(new BigInt64Array(buffer, at, count), Number);
    case 'I32':
      return Float32Array.from(new Int32Array(buffer, at, count));
    case 'I16':
      return Float32Array.from(new Int16Array(buffer, at, count));
    case 'I8':
      return Float32Array.from(new Int8Array(buffer, at, count));
    case 'U8':
    case 'BOOL':
      return Float32Array.from(aligned);
  }
}

let halves: Float32Array | undefined;

function halvesToFloat32(bits: Uint16Array): Float32Array {
  const table = (halves ??= Float32Array.from({ length: 65536 }, (_, h) => halfToNumber(h)));
  const out = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i++) out[i] = table[bits[i]!]!;
  return out;
}

/** IEEE 754 binary16. */
function halfToNumber(h: number): number {
  const sign = h & 0x8000 ? -1 : 1;
  const exponent = (h >> 10) & 0x1f;
  const fraction = h & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

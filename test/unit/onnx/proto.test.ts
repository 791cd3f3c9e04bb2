// Bytes of ONNX files: how many is known before the numbers are made.
import { describe, expect, test } from 'vitest';
import { modelPieces, type OnnxModel, type OnnxTensor } from '../../../lib/onnx/proto.js';

const model = (...initializers: OnnxTensor[]): OnnxModel => ({
  ...{ name: 'x', producerVersion: '1', opset: 16, nodes: [], inputs: [], outputs: [] },
  ...{ metadata: {}, initializers },
});
const never = () => {
  throw new Error('made');
};

describe('modelPieces', () => {
  test('tells the length, and makes numbers when they are asked for, one tensor after the other', () => {
    const log: string[] = [];
    const tensor = (name: string, length: number): OnnxTensor => ({
      ...{ name, type: 'float32', shape: [length] },
      values: () => {
        log.push(`made ${name}`);
        return new Float32Array(length).fill(7);
      },
    });
    const file = modelPieces(model(tensor('a', 40), tensor('b', 5000)));
    expect(log).toEqual([]);
    let bytes = 0;
    for (const piece of file) {
      bytes += piece.length;
      if (piece.length >= 160) log.push(`written ${piece.length}`);
    }
    expect(bytes).toBe(file.bytes);
    expect(log).toEqual(['made a', 'written 160', 'made b', 'written 20000']);
  });

  test('each type has its size, a scalar too', () => {
    const file = modelPieces(
      model(
        { name: 'f', type: 'float32', shape: [], values: () => Float32Array.of(1.5) },
        { name: 'i', type: 'int64', shape: [2], values: () => BigInt64Array.of(1n, -1n) },
        { name: 'b', type: 'bool', shape: [3], values: () => Uint8Array.of(1, 0, 1) },
        { name: 'none', type: 'float32', shape: [0, 4], values: () => new Float32Array() },
      ),
    );
    expect(Buffer.concat([...file])).toHaveLength(file.bytes);
  });

  test.each([2 ** 29, 2 ** 31])('refuses %i numbers without making them', (length) => {
    const large = { name: 'a', type: 'float32', shape: [length], values: never } as const;
    expect(() => modelPieces(model(large))).toThrow(
      expect.objectContaining({
        code: 'ERR_RANGE',
        message: expect.stringMatching(
          /^onnx: a file must be at most 2147483647 bytes \(the format's limit\), got \d+$/,
        ),
      }),
    );
  });

  test('values that are not as many as the shape says are a fault', () => {
    const wrong = { name: 'a', type: 'float32', shape: [3], values: () => new Float32Array(2) };
    const file = modelPieces(model(wrong as OnnxTensor));
    expect(() => [...file]).toThrow('onnx: a must have 12 bytes for [3], got 8');
  });
});

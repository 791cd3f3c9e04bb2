import { createRequire } from 'node:module';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { MixplError } from './errors.js';

/** Element types of native tensors; bf16 travels as Uint16Array. */
export type DType = 'f32' | 'bf16' | 'i32' | 'u8';
export type TypedArray = Float32Array | Int32Array | Uint8Array | Uint16Array;

/** Handle of a native tensor. */
export interface NativeTensor {
  readonly shape: number[];
  readonly dtype: DType;
  readonly device: string;
  readonly disposed: boolean;
  /** [async] Numbers in row-major order; bf16 widened to Float32Array. */
  read(): Promise<Float32Array | Int32Array | Uint8Array>;
  /** [sync] Lets go of the memory; idempotent. */
  dispose(): void;
}

export interface BuildInfo {
  onednnVersion: string;
  threads: number;
  cpuFeatures: string[];
  cudaCompiled: boolean;
}

export interface MemoryStats {
  liveBytes: number;
  peakLiveBytes: number;
  cachedBytes: number;
  systemAllocations: number;
}

export interface RunOpMode {
  compute?: 'f32' | 'bf16';
  training?: boolean;
  /** One gradient (or null) per output: asks for the gradients of all floating inputs. */
  douts?: (NativeTensor | null)[];
}

/** What native/binding exports. Each area of the binding has its own part. */
export interface NativeAddon {
  /** Hands over the class that native errors are made of. */
  setErrorClass(errorClass: typeof MixplError): void;
  buildInfo(): BuildInfo;
  setNumThreads(threads: number): void;
  memoryStats(): MemoryStats;
  resetPeakMemory(): void;
  createTensor(data: TypedArray, shape: readonly number[], dtype: DType): NativeTensor;
  runOp(
    name: string,
    inputs: readonly NativeTensor[],
    optionsJson: string,
    mode?: RunOpMode,
  ): Promise<{ outputs: NativeTensor[]; gradients: (NativeTensor | null)[] }>;
  opNames(): string[];
}

const packageRoot = resolve(dirname(fileURLToPath(import.meta.url)), '..');
let loaded: NativeAddon | undefined;

/** Loads the addon on first use. @throws MixplError ERR_ADDON saying what was tried and the remedy */
export function loadNative(): NativeAddon {
  if (loaded) return loaded;
  const require = createRequire(import.meta.url);
  try {
    const load = require('node-gyp-build') as (directory: string) => object;
    const addon = load(packageRoot) as NativeAddon;
    addon.setErrorClass(MixplError);
    loaded = addon;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new MixplError(
      'ERR_ADDON',
      `the native addon could not be loaded for ${process.platform}-${process.arch}, Node ${process.version}: ` +
        `tried prebuilds/ and build/Release/ in ${packageRoot}: ${reason}; ` +
        'try `bash scripts/setup.sh && npm run build` in a source checkout',
      { cause },
    );
  }
  return loaded;
}

/** The addon; its functions load it when first called. */
export const native: NativeAddon = new Proxy({} as NativeAddon, {
  get: (_, name) => Reflect.get(loadNative(), name),
});

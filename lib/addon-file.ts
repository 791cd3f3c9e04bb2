/** Where the addon's file lies, and what to say where it does not. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { MixplError } from './errors.js';

/**
 * The exports of the addon of this platform, or of the one that the environment variable MIXPL_ADDON names.
 * @throws MixplError ERR_ADDON saying what was tried and the remedy
 */
export function requireAddon(): object {
  refuseOldCpu();
  const packageRoot = packageFolder();
  const require = createRequire(join(packageRoot, 'package.json'));
  try {
    const load = require('node-gyp-build') as (directory: string) => object;
    const other = process.env.MIXPL_ADDON; // a build for tests, say, with an emulated GPU
    return withSettings(() => (other ? require(resolve(other)) : load(packageRoot)));
  } catch (cause) {
    if (!isPackage(packageRoot)) throw bundled(packageRoot, cause);
    const [reason] = (cause instanceof Error ? cause.message : String(cause)).split('\n');
    throw new MixplError(
      'ERR_ADDON',
      `the native addon could not be loaded for ${process.platform}-${process.arch}, Node ${process.version}: ` +
        `tried ${process.env.MIXPL_ADDON ?? `prebuilds/ and build/Release/ in ${packageRoot}`}: ${reason}; ` +
        'packages have it for Linux on x86-64 with glibc 2.35 or later; elsewhere try ' +
        '`bash scripts/setup.sh && npm run build` in a source checkout',
      { cause },
    );
  }
}

/** Settings that the addon's libraries read once, as they are loaded. What the user has set stays. */
export const addonSettings = {
  // How long an idle OpenMP thread spins before it sleeps. The default (300,000 rounds, milliseconds) takes the cores
  // from image decoding and makes a machine that is shared with others several times slower.
  GOMP_SPINCOUNT: '10000',
};

/**
 * They are seen by nobody but what is loaded here. In a worker, whose environment is a copy, by nobody at all; native.ts
 * therefore loads in the main thread first.
 */
function withSettings<T>(load: () => T): T {
  const own = Object.entries(addonSettings).filter(([name]) => process.env[name] === undefined);
  for (const [name, value] of own) process.env[name] = value;
  try {
    return load();
  } finally {
    for (const [name] of own) delete process.env[name];
  }
}

/** @throws MixplError ERR_ADDON where a bundler has made CommonJS of this file, which then knows no place of its own */
function packageFolder(): string {
  const here: string | undefined = import.meta.url;
  if (here === undefined) throw bundled('a CommonJS file');
  return resolve(dirname(fileURLToPath(here)), '..');
}

function isPackage(folder: string): boolean {
  try {
    const text = readFileSync(join(folder, 'package.json'), 'utf8');
    return (JSON.parse(text) as { name?: string }).name === 'mixpl';
  } catch {
    return false;
  }
}

function bundled(where: string, cause?: unknown): MixplError {
  return new MixplError(
    'ERR_ADDON',
    'mixpl must be loaded from its own package, which has the native addon and presets, got its code bundled into ' +
      `${where}; try to mark it as external (esbuild: --external:mixpl, webpack: externals, Vite: ssr.external)`,
    { cause },
  );
}

/** The addon's own loops need AVX2 and FMA; without them it would die of an illegal instruction. */
function refuseOldCpu(): void {
  if (process.platform !== 'linux' || process.arch !== 'x64') return;
  let flags: string | undefined;
  try {
    flags = /^flags\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1];
  } catch {
    return; // no /proc: let the loader try
  }
  const missing = ['avx2', 'fma'].filter((name) => flags && !flags.includes(` ${name}`));
  if (missing.length)
    throw new MixplError(
      'ERR_ADDON',
      `the native addon needs a CPU with AVX2 and FMA (x86-64-v3), got one without ${missing.join(' and ')}; ` +
        'try a build for this CPU: `npm run build:native -- --CDMIXPL_CPU_ARCH=x86-64`',
    );
}

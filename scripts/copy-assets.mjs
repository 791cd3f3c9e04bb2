// Copies what the compiler does not: files that the library reads at run time.
import { cpSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = new URL('../', import.meta.url);
const presets = fileURLToPath(new URL('dist/config/presets', root));
rmSync(presets, { recursive: true, force: true });
cpSync(fileURLToPath(new URL('lib/config/presets', root)), presets, { recursive: true });

// Copies what the compiler does not: files that the library reads at run time.
import { cpSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = new URL('../', import.meta.url);
const path = (name) => fileURLToPath(new URL(name, root));
rmSync(path('dist/config/presets'), { recursive: true, force: true });
cpSync(path('lib/config/presets'), path('dist/config/presets'), { recursive: true });
// The charts of a report, with their licence.
for (const name of ['dist/uPlot.iife.min.js', 'dist/uPlot.min.css', 'LICENSE'])
  cpSync(
    path(`node_modules/uplot/${name}`),
    path(`dist/report/assets/${name === 'LICENSE' ? 'uPlot.LICENSE' : name.slice(5)}`),
  );

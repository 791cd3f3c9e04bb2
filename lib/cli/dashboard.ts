import type { Command } from 'commander';
import { withInterrupt } from './interrupt.js';
import { wholeNumber } from './numbers.js';
import { createOutput } from './output.js';

interface DashboardFlags {
  host: string;
  port: number;
  json?: boolean;
}

export function addDashboardCommand(program: Command): void {
  program
    .command('dashboard')
    .description('show runs side by side in a browser while they train')
    .argument('[dir]', 'folder of a run, or a folder that contains runs', 'runs')
    .option(
      '--host <name>',
      'address to listen on; 0.0.0.0 lets other machines connect',
      '127.0.0.1',
    )
    .option('--port <n>', 'port to listen on; 0 takes any free one', wholeNumber(0, 65535), 0)
    .option('--json', 'print { "url" }')
    .action(async (folder: string, { host, port, ...flags }: DashboardFlags) => {
      const output = createOutput(flags);
      const { startDashboard } = await import('../dashboard/index.js');
      const dashboard = await startDashboard({ folder, host, port });
      const { url } = dashboard;
      await output.result({ url }, () => `${url} shows the runs in ${folder}; Ctrl-C stops it`);
      await withInterrupt(
        (signal) =>
          new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve())),
      );
      await dashboard.close();
    });
}

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
    .description('runs in a browser while they train, beside each other')
    .argument('[dir]', 'a run, or a folder with runs in it', 'runs')
    .option(
      '--host <name>',
      'who may look; 0.0.0.0: every machine that reaches this one',
      '127.0.0.1',
    )
    .option('--port <n>', '0: any that is free', wholeNumber(0, 65535), 0)
    .option('--json', 'print { "url" }')
    .action(async (folder: string, { host, port, ...flags }: DashboardFlags) => {
      const output = createOutput(flags);
      const { startDashboard } = await import('../dashboard/index.js');
      const dashboard = await startDashboard({ folder, host, port });
      const { url } = dashboard;
      await output.result({ url }, () => `${url} shows the runs in ${folder}; Ctrl-C ends it`);
      await withInterrupt(
        (signal) =>
          new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve())),
      );
      await dashboard.close();
    });
}

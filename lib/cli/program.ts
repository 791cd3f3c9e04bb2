/**
 * The command line. Nothing heavy is imported before a command runs, so that --help answers at once.
 */
import { Command, CommanderError } from 'commander';
import { visible } from '../log/visible.js';
import { packageVersion } from '../version.js';
import { addAnalyzeCommands } from './analyze.js';
import { addBenchCommand } from './bench.js';
import { addConfigCommands } from './config.js';
import { addDashboardCommand } from './dashboard.js';
import { addDataCommands } from './data.js';
import { addDemoCommand } from './demo.js';
import { addDoctorCommand } from './doctor.js';
import { addEvalCommand } from './eval.js';
import { exitCodes, reportError } from './output.js';
import { addPredictCommand } from './predict.js';
import { addTrainCommand } from './train.js';
import { addWeightsCommands } from './weights.js';

/** Runs a command line without the program's name. @returns the exit code */
export async function main(args: readonly string[]): Promise<number> {
  const json = args.includes('--json');
  // A closed pipe (`mixpl … | head`) is no error.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(exitCodes.ok);
    throw error;
  });
  // Nobody reads what people see: the work goes on.
  process.stderr.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
  });
  process.on('uncaughtException', (error) => process.exit(reportError(error, { json })));

  let complaint = '';
  const program = createProgram((text) => {
    complaint += text;
  });
  try {
    await program.parseAsync(args, { from: 'user' });
    return Number(process.exitCode ?? exitCodes.ok);
  } catch (error) {
    if (!(error instanceof CommanderError)) return reportError(error, { json });
    if (error.exitCode === 0) return exitCodes.ok;
    return reportUsage(complaint || error.message, { json });
  }
}

function createProgram(complain: (text: string) => void): Command {
  const program = new Command('mixpl')
    .description('Trains object detectors from few labelled and many unlabelled images (MixPL).')
    .version(packageVersion(), '-V, --version')
    .exitOverride()
    .configureOutput({ writeErr: complain })
    .configureHelp({ showGlobalOptions: false })
    .helpCommand(false)
    .addHelpText(
      'after',
      '\nEvery command takes --help, and --json to print JSON for other programs. Start with mixpl demo, or extend a preset (mixpl presets).\n\nExit codes: 0 done, 1 failed, 2 wrong command line or config, 70 internal error of mixpl, 130 interrupted.',
    );
  addTrainCommand(program);
  addEvalCommand(program);
  addPredictCommand(program);
  addAnalyzeCommands(program);
  addWeightsCommands(program);
  addDataCommands(program);
  addConfigCommands(program);
  addDashboardCommand(program);
  addDemoCommand(program);
  addDoctorCommand(program);
  addBenchCommand(program);
  return program;
}

/** commander's own words: one line, without its `error: `. */
function reportUsage(complaint: string, { json }: { json: boolean }): number {
  const help = complaint.startsWith('Usage:');
  const message = help
    ? 'a command is missing'
    : complaint
        .trim()
        .replace(/^error: /, '')
        .replaceAll('\n', ' ');
  process.stderr.write(help ? complaint : `error: ${visible(message)}\n`);
  if (json) process.stdout.write(`${JSON.stringify({ error: { code: 'ERR_USAGE', message } })}\n`);
  return exitCodes.usage;
}

import { cpus } from 'node:os';
import type { Command } from 'commander';
import { createOutput, exitCodes } from './output.js';
import { packageVersion } from './program.js';

/** What `mixpl doctor --json` prints. */
export interface DoctorReport {
  version: string;
  node: string;
  build: { onednn: string | null; cuda: { compiled: boolean; architectures: string[] } };
  devices: { id: string; name: string; usable: boolean; reason?: string }[];
  /** Why CUDA cannot be used. */
  cudaReason?: string;
}

export function addDoctorCommand(program: Command): void {
  program
    .command('doctor')
    .description('what this installation can do, and what keeps it from doing more')
    .option('--json', 'print { version, node, build, devices, cudaReason? }')
    .action(async (flags: { json?: boolean }) => {
      const { report, remarks } = await examine();
      await createOutput(flags).result(report, () => describe(report, remarks));
      if (!report.devices.some(({ usable }) => usable)) process.exitCode = exitCodes.failed;
    });
}

async function examine(): Promise<{ report: DoctorReport; remarks: string[] }> {
  const remarks: string[] = [];
  const name = cpus()[0]?.model.trim() || process.arch;
  const report: DoctorReport = {
    version: packageVersion(),
    node: process.version,
    build: { onednn: null, cuda: { compiled: false, architectures: [] } },
    devices: [],
  };
  try {
    const { loadNative } = await import('../native.js');
    const build = loadNative().buildInfo();
    report.build.onednn = build.onednnVersion;
    report.build.cuda.compiled = build.cudaCompiled;
    report.devices.push({ id: 'cpu', name, usable: true });
    remarks.push(`threads: ${build.threads}`, `processor: ${build.cpuFeatures.join(', ')}`);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    report.devices.push({ id: 'cpu', name, usable: false, reason });
  }
  if (!report.build.cuda.compiled) report.cudaReason = 'this build has no CUDA code';
  try {
    const { default: sharp } = await import('sharp');
    remarks.push(`images: sharp ${sharp.versions.sharp}, libvips ${sharp.versions.vips}`);
  } catch (error) {
    remarks.push(`images: sharp cannot be loaded: ${(error as Error).message}; try npm ci`);
  }
  return { report, remarks };
}

function describe(report: DoctorReport, remarks: readonly string[]): string {
  const { build, devices } = report;
  return [
    `mixpl ${report.version}, Node ${report.node}`,
    `oneDNN: ${build.onednn ?? 'unknown'}`,
    `CUDA: ${report.cudaReason ?? 'compiled in'}`,
    ...devices.map(
      ({ id, name, usable, reason }) =>
        `device ${id}: ${name}: ${usable ? 'usable' : `not usable: ${reason}`}`,
    ),
    ...remarks,
  ].join('\n');
}

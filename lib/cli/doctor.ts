import { cpus } from 'node:os';
import type { Command } from 'commander';
import type { DeviceInfo } from '../native.js';
import { packageVersion } from '../version.js';
import { createOutput, exitCodes } from './output.js';

/** What `mixpl doctor --json` prints. */
export interface DoctorReport {
  version: string;
  node: string;
  build: { onednn: string | null; cuda: { compiled: boolean; architectures: string[] } };
  devices: DeviceInfo[];
  /** What gradients of several processes can be summed by: 'gloo', 'nccl'. */
  collectives: string[];
  /** Why no GPU can be used. */
  cudaReason?: string;
}

export function addDoctorCommand(program: Command): void {
  program
    .command('doctor')
    .description('show what this installation can do, and what keeps it from doing more')
    .option('--json', 'print { version, node, build, devices, collectives, cudaReason? }')
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
    collectives: [],
  };
  try {
    const { loadNative } = await import('../native.js');
    const native = loadNative();
    const build = native.buildInfo();
    report.build.onednn = build.onednnVersion;
    report.build.cuda = { compiled: build.cudaCompiled, architectures: build.cudaArchitectures };
    const [cpu, ...gpus] = native.devices();
    report.devices.push({ ...cpu!, name }, ...gpus);
    const cudaReason = native.cudaReason();
    if (cudaReason !== null) report.cudaReason = cudaReason;
    const collectives = native.collectives();
    report.collectives = collectives;
    remarks.push(
      `threads: ${build.threads}`,
      `processor: ${build.cpuFeatures.join(', ')}`,
      `training with several processes: ${collectives.length ? `by ${collectives.join(', ')}` : 'not possible (neither the plug-in for gloo nor libnccl.so.2 was found)'}`,
    );
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    report.devices.push({ id: 'cpu', name, usable: false, reason });
    report.cudaReason = 'the native addon cannot be loaded';
  }
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
  const compiled = build.cuda.compiled ? `compiled for ${build.cuda.architectures.join(', ')}` : '';
  return [
    `mixpl ${report.version}, Node ${report.node}`,
    `oneDNN: ${build.onednn ?? 'unknown'}`,
    `CUDA: ${[compiled, report.cudaReason].filter(Boolean).join('; ')}`,
    ...devices.map(describeDevice),
    ...remarks,
  ].join('\n');
}

function describeDevice({ id, name, usable, reason, ...gpu }: DeviceInfo): string {
  const gib = (bytes = 0) => (bytes / 2 ** 30).toFixed(1);
  const facts = gpu.computeCapability
    ? [
        `compute capability ${gpu.computeCapability}`,
        `${gib(gpu.freeBytes)} of ${gib(gpu.memoryBytes)} GiB free`,
      ]
    : [];
  return `device ${id}: ${[name, ...facts].join(', ')}: ${usable ? 'usable' : `not usable: ${reason}`}`;
}

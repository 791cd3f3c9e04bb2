import { type Command, Option } from 'commander';
import type { ResolvedConfig } from '../config/index.js';
import type { Category, DetectionDataset, ProblemPolicy } from '../data/index.js';
import type { CocoMetrics } from '../eval/index.js';
import { type CheckpointDataset, checkpointDataset } from './checkpoint-dataset.js';
import {
  type DatasetFlags,
  type PolicyFlags,
  policyOption,
  warnOfProblems,
  withDatasetOptions,
} from './dataset-argument.js';
import { withInterrupt } from './interrupt.js';
import { createOutput, type Output } from './output.js';
import { type RuntimeFlags, useRuntime, withRuntimeOptions } from './runtime-options.js';
import { createStatus } from './status.js';

interface EvalFlags extends DatasetFlags, RuntimeFlags, PolicyFlags {
  annotations?: string;
  detections?: string;
  checkpoint?: string;
  save?: string;
  protocol: 'coco' | 'mmdetection';
  voc?: '11point' | 'area';
  json?: boolean;
}

export function addEvalCommand(program: Command): void {
  const command = withDatasetOptions(
    program
      .command('eval')
      .description('compute COCO box metrics of a trained detector, or of detections in a file')
      .argument('[dataset]', "COCO file or VOC folder (default: the run's own test data)")
      .usage(
        '[options] [dataset] --checkpoint <path>\n       mixpl eval [options] --annotations <file> --detections <file>',
      ),
  )
    .option(
      '--annotations <file>',
      'ground truth as COCO JSON; with --detections, instead of --checkpoint',
    )
    .option('--detections <file>', 'detections as COCO results JSON')
    .option('--checkpoint <path>', 'weights file, checkpoint or folder of a run')
    .option('--save <file>', 'also write the detections as COCO results JSON; with --checkpoint')
    .addOption(policyOption());
  withRuntimeOptions(command)
    .addOption(
      new Option(
        '--protocol <name>',
        'limits on detections per image and class, as in pycocotools (coco) or in mmdetection',
      )
        .choices(['coco', 'mmdetection'])
        .default('coco'),
    )
    .addOption(
      new Option(
        '--voc <rule>',
        "also compute Pascal VOC's metrics: 11point as in VOC2007, area as later; crowds count as difficult",
      ).choices(['11point', 'area']),
    )
    .option(
      '--json',
      'print { "stats": [12 numbers], "perClassAP": { id: number or null } }, with --voc also "voc"',
    )
    .action(async (dataset: string | undefined, flags: EvalFlags, command: Command) => {
      const output = createOutput(flags);
      const { annotations, detections, protocol, voc } = flags;
      if (flags.checkpoint !== undefined) {
        if (annotations !== undefined || detections !== undefined)
          command.error(
            'error: --annotations and --detections cannot be combined with --checkpoint',
          );
        return evaluateCheckpoint(dataset, flags, output);
      }
      if (annotations === undefined || detections === undefined)
        command.error('error: eval needs --checkpoint, or --annotations and --detections');
      if (dataset !== undefined || flags.save !== undefined)
        command.error('error: a data set and --save need --checkpoint');
      if (Object.keys(flags.policy).length > 0)
        command.error(
          'error: --policy needs --checkpoint: files are evaluated as pycocotools does',
        );
      const { evaluateFiles } = await import('./eval-files.js');
      const files = { annotations, detections, protocol, voc };
      const { metrics, warnings } = await withInterrupt((signal) =>
        evaluateFiles({ ...files, signal }),
      );
      for (const warning of warnings) output.warn(warning);
      const { metricNumbers } = await import('../eval/index.js');
      await output.result(metricNumbers(metrics), () => describe(metrics));
    });
}

/** Of a detector's weights; of a checkpoint with both branches, teacher and student side by side. */
async function evaluateCheckpoint(
  path: string | undefined,
  flags: EvalFlags,
  output: Output,
): Promise<void> {
  const checkpoint = flags.checkpoint!;
  const { openDetector } = await import('../detector/open.js');
  const { evaluateDetections, formatComparison, metricNumbers, writeCocoResults } = await import(
    '../eval/index.js'
  );
  const { detectReadable, findWeights } = await import('../train/index.js');
  const { headline, student, teacher } = await findWeights(checkpoint);
  const runtime = await useRuntime(flags);
  const status = createStatus();
  let test: CheckpointDataset | undefined;
  const told = new Set<string>();
  const evaluate = async (file: string, signal: AbortSignal, save?: string) => {
    const { detector, categories } = await openDetector(file, runtime);
    try {
      if (!test) {
        test = await checkpointDataset(path, {
          ...{ command: 'eval', flags, checkpoint, categories, signal },
          purpose: 'evaluation',
          ofRun: (config, policy) => runTestData(config, { categories, policy, signal }),
        });
        await warnOfProblems(test.dataset, output);
      }
      const { preprocess, computeDtype: dtype, device } = detector;
      const found = await detectReadable(detector, test.dataset, {
        ...{ preprocess, dtype, device, signal, cache: test.cache, resize: preprocess.resize },
        unreadable: test.unreadable,
        onUnreadable: ({ message }, path) => {
          if (!told.has(path)) output.warn(`${message}; it is left out of the metrics`);
          told.add(path);
        },
        onProgress: (done, total) => status.set(`${file}: ${done}/${total}`),
      });
      if (save !== undefined) await writeCocoResults(save, found);
      const { protocol, voc = null } = flags;
      return await evaluateDetections(found, { protocol, voc });
    } finally {
      detector.dispose();
    }
  };
  const { metrics, branches } = await withInterrupt(async (signal) => ({
    metrics: await evaluate(headline, signal, flags.save),
    branches:
      student && teacher
        ? { student: await evaluate(student, signal), teacher: await evaluate(teacher, signal) }
        : null,
  }));
  status.clear();
  const both = branches && {
    student: metricNumbers(branches.student),
    teacher: metricNumbers(branches.teacher),
  };
  await output.result({ weights: headline, ...metricNumbers(metrics), ...both }, async () =>
    [
      `weights: ${headline}`,
      await describe(metrics),
      ...(branches ? ['newest checkpoint:', await formatComparison(branches)] : []),
    ].join('\n\n'),
  );
}

/** Null when the config names none. */
async function runTestData(
  config: ResolvedConfig,
  of: { categories: readonly Category[]; policy: ProblemPolicy; signal: AbortSignal },
): Promise<DetectionDataset | null> {
  const { datasetSource } = await import('../config/index.js');
  const { loadDataset } = await import('../data/index.js');
  const source = datasetSource(config, 'test');
  if (!source) return null;
  return loadDataset(source, {
    ...{ ...of, purpose: 'evaluation' },
    otherClasses: config.data.classes ? 'skip' : 'policy',
  });
}

async function describe(metrics: CocoMetrics): Promise<string> {
  const { formatPerClass, formatSummary } = await import('../eval/index.js');
  return `${formatSummary(metrics)}\n\n${await formatPerClass(metrics)}`;
}

import { type Command, Option } from 'commander';
import { createOutput } from './output.js';

interface EvalFlags {
  annotations?: string;
  detections?: string;
  protocol: 'coco' | 'mmdetection';
  json?: boolean;
}

export function addEvalCommand(program: Command): void {
  program
    .command('eval')
    .description('COCO box metrics of detections')
    .option('--annotations <file>', 'ground truth, COCO JSON')
    .option('--detections <file>', 'detections, COCO results JSON')
    .addOption(
      new Option('--protocol <name>', 'limits of detections per image and class')
        .choices(['coco', 'mmdetection'])
        .default('coco'),
    )
    .option('--json', 'print { "stats": [12 numbers], "perClassAP": { id: number or null } }')
    .action(async (flags: EvalFlags, command: Command) => {
      const output = createOutput(flags);
      const { annotations, detections, protocol } = flags;
      if (annotations === undefined || detections === undefined)
        command.error('error: eval needs --annotations and --detections');
      const { evaluateFiles } = await import('./eval-files.js');
      const { stats, perClassAP, metrics, warnings } = await evaluateFiles({
        annotations,
        detections,
        protocol,
      });
      for (const warning of warnings) output.warn(warning);
      await output.result({ stats, perClassAP }, async () => {
        const { formatPerClass, formatSummary } = await import('../eval/index.js');
        return `${formatSummary(metrics)}\n\n${await formatPerClass(metrics)}`;
      });
    });
}

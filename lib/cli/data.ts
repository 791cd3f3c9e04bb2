import { join } from 'node:path';
import { type Command, Option } from 'commander';
import type {
  DatasetCheck,
  DatasetProblem,
  DetectionDataset,
  ProblemSummary,
} from '../data/index.js';
import {
  actionDone,
  type DatasetFlags,
  datasetArgument,
  type PolicyFlags,
  policyOf,
  policyOption,
  warnOfProblems,
  withDatasetArgument,
} from './dataset-argument.js';
import { withInterrupt } from './interrupt.js';
import { numberUpTo, wholeNumber } from './numbers.js';
import { createOutput, exitCodes, type Output } from './output.js';
import { createStatus } from './status.js';

interface CommonFlags extends DatasetFlags {
  json?: boolean;
}

export function addDataCommands(program: Command): void {
  const data = program
    .command('data')
    .description('check, split and convert data sets')
    .helpCommand(false);

  withDatasetArgument(data.command('check'))
    .description('count classes, box sizes and problems of a data set, and check its image files')
    .addOption(
      new Option(
        '--files <how>',
        'what to read of the image files: nothing, the headers, or all pixels',
      )
        .choices(['none', 'header', 'decode'])
        .default('header'),
    )
    .option(
      '--unlabelled',
      'check it as unlabelled data, which needs no annotations and no categories',
    )
    .option(
      '--list <file>',
      'also write every problem to this file, one line of JSON each (with --unlabelled: only those of images)',
    )
    .option('--json', 'print the findings as JSON')
    .action(check);

  withDatasetArgument(data.command('split'))
    .description('split a data set into two COCO files: few labelled and many unlabelled images')
    .requiredOption(
      '--percent <number>',
      'percentage of the images that keep their labels, in (0, 100]',
      numberUpTo(100, '(0'),
    )
    .option(
      '--fold <number>',
      'number of the random draw; each gives another split',
      wholeNumber(0),
      1,
    )
    .addOption(
      new Option(
        '--scheme <name>',
        'how images are drawn; exact: without replacement, reference: as in the published COCO splits',
      )
        .choices(['exact', 'reference'])
        .default('exact'),
    )
    .option('--keep-annotations', 'keep the annotations of the unlabelled images in their file')
    .option('--out <folder>', 'folder for the two files', '.')
    .addOption(policyOption())
    .option('--json', 'print files, counts and the hash of the split as JSON')
    .action(split);

  withDatasetArgument(data.command('convert'))
    .description('write a data set as a COCO file')
    .requiredOption('--out <file>', 'COCO file to write')
    .option('--unlabelled', 'leave out its annotations')
    .addOption(policyOption())
    .option('--json', 'print file and counts as JSON')
    .action(convert);
}

async function check(
  path: string,
  flags: CommonFlags & { files: 'none' | 'header' | 'decode'; unlabelled?: boolean; list?: string },
): Promise<void> {
  const { checkDataset, describeProblem, lenientPolicy, loadDataset, problemRules } = await import(
    '../data/index.js'
  );
  const status = createStatus();
  const all: DatasetProblem[] = [];
  const onProblem = flags.list ? (problem: DatasetProblem) => void all.push(problem) : undefined;
  const found = await withInterrupt(async (signal) => {
    const source = await datasetArgument(path, flags);
    const progress = (label: string) => (done: number, total: number) =>
      status.set(`${label} ${done}/${total}`);
    const dataset = await loadDataset(source, {
      ...{ policy: lenientPolicy, onProblem, labelled: flags.unlabelled ? 'hidden' : true },
      signal,
      onProgress: progress('headers'),
    });
    const { files } = flags;
    const checked = await checkDataset(dataset, {
      ...{ files, onProblem },
      signal,
      onProgress: progress('image files'),
    });
    // What training with the default policy would do.
    const problems = checked.problems.map((problem) => ({
      ...problem,
      action: problemRules[problem.kind].actions[0],
    }));
    return { ...checked, problems, usable: problems.every(({ action }) => action !== 'refuse') };
  });
  status.clear();
  if (flags.list) {
    const { writeFileWhole } = await import('../files.js');
    await writeFileWhole(
      flags.list,
      all.map((problem) => `${JSON.stringify(problem)}\n`),
    );
  }
  await createOutput(flags).result(found, () =>
    describeCheck(found, { what: (kind) => problemRules[kind].what, describe: describeProblem }),
  );
  if (!found.usable) process.exitCode = exitCodes.failed;
}

function describeCheck(
  found: DatasetCheck & { usable: boolean },
  say: { what: (kind: ProblemSummary['kind']) => string; describe: (p: DatasetProblem) => string },
): string {
  const { what, describe } = say;
  const { images, boxSizes, classes, problems } = found;
  const size = (side: { width: number; height: number } | null) =>
    side ? `${side.width}x${side.height}` : '-';
  const lines = [
    `${found.name} (${found.source})`,
    `fingerprint  ${found.fingerprint}`,
    `images       ${images.total}: ${images.unlabelled} unlabelled, ${images.empty} empty, ` +
      `${images.portrait} portrait, ${size(images.smallest)} … ${size(images.largest)}`,
    `annotations  ${found.annotations}, of them ${found.crowd} crowd or difficult`,
    `box sizes    small ${boxSizes.small}, medium ${boxSizes.medium}, large ${boxSizes.large}`,
  ];
  const width = Math.max(0, ...classes.map(({ name }) => name.length));
  for (const { name, id, instances, images: count } of classes)
    lines.push(`  ${name.padEnd(width)}  id ${id}  ${instances} boxes in ${count} images`);
  if (problems.length === 0) lines.push('no problems');
  for (const problem of problems) {
    lines.push(
      `${actionDone[problem.action]}: ${problem.count} ${what(problem.kind)} (${problem.kind})`,
    );
    const examples = problem.examples.slice(0, 3);
    lines.push(...examples.map((example) => `  ${describe(example)}`));
    const more = problem.count - examples.length;
    if (more > 0) lines.push(`  … and ${more} more (--list FILE writes all of them)`);
  }
  if (!found.usable)
    lines.push("training stops at what is marked 'refused', unless data.policy says otherwise");
  return lines.join('\n');
}

async function split(
  path: string,
  flags: CommonFlags &
    PolicyFlags & {
      percent: number;
      fold: number;
      scheme: 'exact' | 'reference';
      keepAnnotations?: boolean;
      out: string;
    },
): Promise<void> {
  const { splitDataset, writeCoco } = await import('../data/index.js');
  const output = createOutput(flags);
  const dataset = await load(path, flags, { output });
  const { percent, fold, scheme, keepAnnotations = false } = flags;
  const { labelled, unlabelled, hash } = splitDataset(dataset, {
    ...{ percent, fold, scheme, keepAnnotations },
  });
  const { makeFolder } = await import('../files.js');
  await makeFolder(flags.out);
  const write = async (part: DetectionDataset) => {
    const file = join(flags.out, `${part.name}.json`);
    await writeCoco(part, file);
    return { file, images: part.images.length };
  };
  const result = { labelled: await write(labelled), unlabelled: await write(unlabelled), hash };
  await output.result(result, () =>
    [
      `labelled    ${result.labelled.images} images  ${result.labelled.file}`,
      `unlabelled  ${result.unlabelled.images} images  ${result.unlabelled.file}`,
      `hash        ${hash}`,
    ].join('\n'),
  );
}

async function convert(
  path: string,
  flags: CommonFlags & PolicyFlags & { out: string; unlabelled?: boolean },
): Promise<void> {
  const { writeCoco } = await import('../data/index.js');
  const output = createOutput(flags);
  const dataset = await load(path, flags, { output, labelled: !flags.unlabelled });
  await writeCoco(dataset, flags.out);
  const { annotations } = dataset.report;
  const result = { file: flags.out, images: dataset.images.length, annotations };
  await output.result(
    result,
    () => `${result.file}: ${result.images} images, ${annotations} annotations`,
  );
}

/** Reads and says what was passed over. */
async function load(
  path: string,
  flags: DatasetFlags & PolicyFlags,
  { output, labelled = true }: { output: Output; labelled?: boolean },
): Promise<DetectionDataset> {
  const { loadDataset } = await import('../data/index.js');
  const source = await datasetArgument(path, flags);
  const policy = policyOf(flags);
  const dataset = await withInterrupt((signal) =>
    loadDataset(source, { policy, signal, labelled }),
  );
  await warnOfProblems(dataset, output);
  return dataset;
}

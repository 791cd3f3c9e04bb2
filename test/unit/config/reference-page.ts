/** docs/configuration.md: every option of a config, from the schema. */
import type { ConfigOption } from '../../../lib/config/option-list.js';

const head = `# Configuration reference

Every option of a config file. This page is made from the schema that checks configs; after a change of it,
\`npx vitest run test/unit/config/option-list.test.ts -u\` writes the page anew.

- A config is YAML. \`extends\` names a preset or another file; what a file says counts before what it extends.
- \`--set semi.scoreThr=0.5\` sets an option on the command line, by the path that stands in the tables.
- \`mixpl config FILE\` prints a config with all its defaults, \`mixpl config --options semi.ema\` the options of a section, and
  \`mixpl config --schema\` a JSON Schema for editors.
- Only \`data\` has to be given. Defaults below are those of a config that extends nothing; with \`model.preset\` or
  \`model.numerics: torchvision\` many are torchvision's ([torchvision.md](torchvision.md)).
- Lengths are in pixels of the network's input unless something else is said.
`;

const sections: Record<string, string> = {
  '': 'Run',
  model: 'Detector',
  data: 'Data',
  preprocess: 'Preprocessing',
  augment: 'Augmentation',
  semi: 'Semi-supervised training',
  optimizer: 'Optimizer',
  schedule: 'Schedule',
  batch: 'Batch',
  validation: 'Validation',
  checkpoint: 'Checkpoints',
  loader: 'Loading',
  logging: 'Logging',
};

export function referencePage(options: readonly ConfigOption[]): string {
  const sectionOf = ({ path }: ConfigOption) => (path.includes('.') ? path.split('.')[0]! : '');
  const parts = Object.entries(sections).map(([section, title]) => {
    const own = options.filter((option) => sectionOf(option) === section);
    if (own.length === 0) throw new Error(`no option is in section ${section}`);
    return [`## ${title}${section && ` (\`${section}\`)`}`, '', ...tables(section, own), ''];
  });
  const unknown = options.find((option) => !(sectionOf(option) in sections));
  if (unknown) throw new Error(`${unknown.path} is in no section`);
  return [head, ...parts.flat()].join('\n').trimEnd().concat('\n');
}

/** Strong and weak views have the options of labelled ones: those are told once. */
function tables(section: string, options: readonly ConfigOption[]): string[] {
  const asLabelled = (option: ConfigOption) =>
    JSON.stringify(option).replaceAll(/augment\.(weak|strong)\b/g, 'augment.labelled');
  const all = new Set(options.map((option) => JSON.stringify(option)));
  const kept = options.filter((option) => {
    const labelled = asLabelled(option);
    return labelled === JSON.stringify(option) || !all.has(labelled);
  });
  if (section !== 'augment') return table(section, kept);
  const note =
    '`augment.weak` and `augment.strong` have the options of `augment.labelled`; those with other defaults are listed.';
  return [note, '', ...table(section, kept)];
}

function table(section: string, options: readonly ConfigOption[]): string[] {
  const conditional = options.some(({ only }) => only.length > 0);
  const columns = ['option', 'values', 'default', ...(conditional ? ['with'] : []), 'meaning'];
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  return [
    line(columns),
    line(columns.map(() => '---')),
    ...options.map(({ path, values, default: value, only, description }) =>
      line([
        `\`${path}\``,
        escaped(values),
        value === null ? '' : `\`${value}\``,
        ...(conditional
          ? [escaped(only.map((kind) => kind.replace(`${section}.`, '')).join('; '))]
          : []),
        escaped(description),
      ]),
    ),
  ];
}

const escaped = (text: string) => text.replaceAll('|', '\\|').replaceAll('*', '\\*');

import { type Command, Option } from 'commander';
import type { ConfigOption } from '../config/index.js';
import { createOutput } from './output.js';

/** An option that may be repeated; its value is the list of what was given. */
export function repeatable(flags: string, description: string): Option {
  return new Option(flags, `${description}; may be repeated`)
    .argParser((value: string, previous: readonly string[]) => [...previous, value])
    .default([], 'none');
}

/** The option that every command with a config has. */
export const setOption = () =>
  repeatable('--set <option=value>', 'override one option of the config, e.g. optimizer.lr=1e-4');

export function addConfigCommands(program: Command): void {
  program
    .command('presets')
    .description('list the configs that come with mixpl')
    .option(
      '--json',
      'print { "presets": [{ "name", "description", "file": path, or null for torchvision\'s }] }',
    )
    .action(async (flags: { json?: boolean }) => {
      const { listPresets } = await import('../config/index.js');
      const { torchvisionPresets } = await import('../detector/torchvision.js');
      const ofTorchvision = torchvisionPresets.map((name) => ({
        ...{ name, file: null },
        description: "torchvision's network and numerics, for its weights; not a training recipe",
      }));
      const presets = [...(await listPresets()), ...ofTorchvision];
      const width = Math.max(...presets.map(({ name }) => name.length));
      await createOutput(flags).result({ presets }, () =>
        presets.map(({ name, description }) => `${name.padEnd(width)}  ${description}`).join('\n'),
      );
    });

  program
    .command('config')
    .description('check a config, and print it with all its defaults')
    .argument('[config]', 'YAML file or name of a preset')
    .addOption(setOption())
    .option(
      '--options [path]',
      'list all options with default and meaning, or those below a path, e.g. semi.ema',
    )
    .option('--schema', 'print the JSON Schema of config files instead, for editors')
    .option('--json', 'print JSON instead of YAML')
    .action(
      async (
        source: string | undefined,
        flags: { set: string[]; options?: string | true; schema?: boolean; json?: boolean },
        command: Command,
      ) => {
        const config = await import('../config/index.js');
        if (flags.options) {
          const below = flags.options === true ? '' : flags.options;
          const options = config.listOptions(below);
          if (options.length === 0) command.error(`error: no option is called '${below}'`);
          await createOutput(flags).result(options, () => options.map(lineOf).join('\n'));
          return;
        }
        if (flags.schema) {
          const schema = config.jsonSchema();
          await createOutput(flags).result(schema, () => JSON.stringify(schema, null, 2));
          return;
        }
        if (source === undefined) command.error("error: missing required argument 'config'");
        const output = createOutput(flags);
        const preset = await config.isPreset(source as string);
        const resolved = await config.loadConfig(source as string, {
          overrides: flags.set,
          withoutData: preset,
        });
        const missing = config.missingData(resolved, source as string);
        if (missing) output.warn(missing);
        for (const advice of config.adviceFor(resolved)) output.warn(advice);
        await output.result(resolved, () => config.formatConfig(resolved).trimEnd());
      },
    );
}

/** As a line of a config that is commented. */
function lineOf({ path, values, default: value, description, only }: ConfigOption): string {
  const line = `${path}:${value === null ? '' : ` ${value}`}`.padEnd(40);
  return `${line}  # ${[values, description, ...only.map((kind) => `with ${kind}`)].filter(Boolean).join('; ')}`;
}

import type { Command } from 'commander';
import { createOutput } from './output.js';

/** Collects a repeated option. */
export function collect(value: string, previous: readonly string[]): string[] {
  return [...previous, value];
}

/** The option that every command with a config has. */
export const setOption = [
  '--set <option=value>',
  'change one option, e.g. optimizer.lr=1e-4; may be repeated',
  collect,
  [] as string[],
] as const;

export function addConfigCommands(program: Command): void {
  program
    .command('presets')
    .description('list the configs that come with mixpl')
    .option('--json', 'print { "presets": [{ "name", "description", "file" }] }')
    .action(async (flags: { json?: boolean }) => {
      const { listPresets } = await import('../config/index.js');
      const presets = await listPresets();
      const width = Math.max(...presets.map(({ name }) => name.length));
      await createOutput(flags).result({ presets }, () =>
        presets.map(({ name, description }) => `${name.padEnd(width)}  ${description}`).join('\n'),
      );
    });

  program
    .command('config')
    .description('check a config and print it with all its defaults')
    .argument('[config]', 'YAML file or name of a preset')
    .option(...setOption)
    .option('--schema', 'print the JSON Schema of a config instead')
    .option('--json', 'print JSON instead of YAML')
    .action(
      async (
        source: string | undefined,
        flags: { set: string[]; schema?: boolean; json?: boolean },
        command: Command,
      ) => {
        const config = await import('../config/index.js');
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

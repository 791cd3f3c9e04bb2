import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { loadConfig } from '../../../lib/config/index.js';
import { cliPath, runCli } from './run-cli.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mixpl-cli-'));
});
afterAll(() => rm(folder, { recursive: true }));

async function write(name: string, content: object | string): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, typeof content === 'string' ? content : JSON.stringify(content));
  return path;
}

describe('a mistake on the command line', () => {
  test.each([
    [['evall'], "error: unknown command 'evall' (Did you mean eval?)"],
    [['eval', '--annotation', 'x', '--detections', 'y'], "unknown option '--annotation'"],
    [['eval', '--annotations', 'x'], 'eval needs --checkpoint, or --annotations and --detections'],
    [['presets', 'x'], 'too many arguments'],
    [['config'], "missing required argument 'config'"],
    [['config', '--options', 'semi.em'], "error: no option is called 'semi.em'"],
    [
      ['eval', '--annotations', 'a', '--detections', 'b', '--protocol', 'voc'],
      'Allowed choices are',
    ],
    [
      ['eval', 'd.json', '--annotations', 'a', '--detections', 'b'],
      'a data set and --save need --checkpoint',
    ],
    [
      ['eval', '--annotations', 'a', '--detections', 'b', '--save', 'c'],
      'a data set and --save need --checkpoint',
    ],
    [
      ['eval', '--checkpoint', 'c', '--detections', 'b'],
      '--annotations and --detections cannot be combined with --checkpoint',
    ],
    [['import', 'x', '--checkpoint', 'c', '--set', 'seed=1', '--out', 'y'], '--set needs --config'],
    [['train', 'torchvision/fcos_resnet50_fp'], 'nearest is torchvision/fcos_resnet50_fpn'],
  ])('%j', async (args, expected) => {
    const { code, stdout, stderr } = await runCli(args);
    expect(code).toBe(2);
    expect(stdout).toBe('');
    expect(stderr).toContain(expected);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
  });

  test('no command at all shows the help', async () => {
    const { code, stderr } = await runCli([]);
    expect(code).toBe(2);
    expect(stderr).toMatch(/^Usage: mixpl/);
  });

  test('with --json stdout holds one object that says it', async () => {
    const { code, stdout } = await runCli(['evall', '--json']);
    expect(code).toBe(2);
    expect(JSON.parse(stdout)).toEqual({
      error: { code: 'ERR_USAGE', message: "unknown command 'evall' (Did you mean eval?)" },
    });
  });
});

test('--help and --version answer on stdout', async () => {
  const help = await runCli(['--help']);
  expect(help).toMatchObject({ code: 0, stderr: '' });
  for (const command of ['config', 'presets', 'doctor', 'eval'])
    expect(help.stdout).toContain(`\n  ${command} `);
  expect((await runCli(['--version'])).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
});

test('where nobody reads stderr the work goes on', async () => {
  const child = spawn(process.execPath, [cliPath, 'config', 'small', '--json'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  child.stderr.destroy();
  let stdout = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  const code = await new Promise((resolve) => child.on('close', resolve));
  expect(code).toBe(0);
  expect(JSON.parse(stdout).name).toBe('small');
});

describe('config', () => {
  test('lists options with their defaults and meanings', async () => {
    const { code, stdout } = await runCli(['config', '--options', 'semi.ema']);
    expect(code).toBe(0);
    const lines = stdout.trimEnd().split('\n');
    expect(lines).toHaveLength(4);
    expect(lines[0]).toMatch(/^semi\.ema\.momentum: 0\.0002 +# number in \[0, 1\]; /);
    const json = await runCli(['config', '--options', '--json']);
    expect(JSON.parse(json.stdout).length).toBeGreaterThan(300);
  });

  test('prints the resolved config, which reads back as itself', async () => {
    const { code, stdout } = await runCli([
      'config',
      'bccd-5',
      '--set',
      'seed=9',
      '--set',
      'data.root=/d',
    ]);
    expect(code).toBe(0);
    const again = await loadConfig(await write('resolved.yaml', stdout));
    expect(again).toEqual(await loadConfig('bccd-5', { overrides: ['seed=9', 'data.root=/d'] }));
  });

  test('a misspelt key: place, option and the nearest name, no stack', async () => {
    const file = await write('bad.yaml', 'extends: bccd-5\nsemi:\n  scoreThrr: 1\n');
    const { code, stdout, stderr } = await runCli(['config', file, '--json']);
    const message = `${file}:3:3: semi.scoreThrr: unknown key; nearest is scoreThr`;
    expect(code).toBe(2);
    expect(stderr).toBe(`error: ${message}\n`);
    expect(JSON.parse(stdout)).toEqual({ error: { code: 'ERR_CONFIG', message } });
  });

  test('a preset without data is printed for who extends it', async () => {
    const { code, stdout, stderr } = await runCli(['config', 'small', '--json']);
    expect(code).toBe(0);
    expect(JSON.parse(stdout).model.backbone.baseWidth).toBe(32);
    const train = await runCli(['train', 'small']);
    expect(train.code).toBe(2);
    expect(train.stderr).toMatch(
      /^error: small: data\.labelled must be given .*\n {4}extends: small\n/,
    );
    expect(stderr).toContain(train.stderr.replace(/^error: /, 'warning: '));
    expect((await runCli(['config', 'torchvision/fcos_resnet50_fpn'])).code).toBe(0);
  });

  test.each([
    ['extnds: small', /unknown key; nearest is extends/],
    [
      'extends: bccd-5\nsemi: &semi [*semi]',
      /:2:1: semi must be a mapping, got something that contains itself/,
    ],
  ])("%j is the config's mistake", async (text, message) => {
    const { code, stderr } = await runCli(['config', await write('odd.yaml', text)]);
    expect(code).toBe(2);
    expect(stderr).toMatch(message);
  });

  test('--set without a value', async () => {
    const { code, stderr } = await runCli(['config', 'bccd-5', '--set', 'semi.scoreThr=']);
    expect(code).toBe(2);
    expect(stderr).toContain('--set semi.scoreThr=: must have a value, got nothing');
  });

  test('MIXPL_DEBUG=1 adds the stack', async () => {
    const { stderr } = await runCli(['config', 'no-such'], { env: { MIXPL_DEBUG: '1' } });
    expect(stderr).toMatch(/\n\s+at .*presets\.js/);
  });

  test('warns of combinations that are usually a mistake', async () => {
    const { code, stderr } = await runCli(['config', 'retinanet-r50-coco-10']);
    expect(code).toBe(0);
    expect(stderr).toMatch(/^warning: model\.backbone\.norm frozen-bn /m);
    const many = await runCli(['config', 'bccd-5', '--set', 'threads=1000']);
    expect(many.stderr).toMatch(
      /^warning: threads 1000 is far more than the \d+ cores of this machine$/m,
    );
  });
});

test('presets', async () => {
  const { stdout } = await runCli(['presets', '--json']);
  const { presets } = JSON.parse(stdout) as { presets: { name: string }[] };
  expect(presets.map(({ name }) => name)).toContain('bccd-5');
  expect(presets).toContainEqual(
    expect.objectContaining({ name: 'torchvision/fcos_resnet50_fpn', file: null }),
  );
  expect((await runCli(['presets'])).stdout).toMatch(/^bccd-2 +Blood cells/m);
});

describe('doctor', () => {
  test('--json has the promised form', async () => {
    const { code, stdout } = await runCli(['doctor', '--json']);
    expect(code).toBe(0);
    const report = JSON.parse(stdout);
    expect(report).toMatchObject({
      version: expect.stringMatching(/^\d+\.\d+\.\d+/),
      node: process.version,
      build: {
        onednn: expect.stringMatching(/^\d+\./),
        cuda: { compiled: expect.any(Boolean), architectures: expect.any(Array) },
      },
    });
    expect(report.devices[0]).toMatchObject({ id: 'cpu', usable: true });
    if (!report.build.cuda.compiled) expect(report.cudaReason).toEqual(expect.any(String));
  });

  test('without --json the same for people', async () => {
    expect((await runCli(['doctor'])).stdout).toMatch(
      /^mixpl .*\noneDNN: .*\nCUDA: .*\ndevice cpu: /,
    );
  });

  test('an addon that is missing or damaged is told in a line, with where it is to be had', async () => {
    const damaged = await write('damaged.node', {});
    for (const [addon, reason] of [
      ['/nowhere.node', "Cannot find module '/nowhere.node'"],
      [damaged, `${damaged}: file too short`],
    ]) {
      const { code, stdout } = await runCli(['doctor'], { env: { MIXPL_ADDON: addon! } });
      expect(code).toBe(1);
      expect(stdout).toContain(
        `tried ${addon}: ${reason}; packages have it for Linux on x86-64 with glibc 2.35 or later; elsewhere try `,
      );
    }
  });
});

describe('dashboard', () => {
  test('says where it is, and ends by Ctrl-C with 0', async () => {
    const child = spawn(process.execPath, [cliPath, 'dashboard', folder, '--json']);
    const exit = once(child, 'exit');
    const [line] = await once(child.stdout.setEncoding('utf8'), 'data');
    const { url } = JSON.parse(line);
    expect(await (await fetch(url)).text()).toContain(`<title>${basename(folder)} – mixpl</title>`);
    child.kill('SIGINT');
    expect(await exit).toEqual([0, null]);
  });

  test('a port that is none is refused', async () => {
    const { code, stderr } = await runCli(['dashboard', '--port', '70000']);
    expect(code).toBe(2);
    expect(stderr).toMatch(
      /'--port <n>' argument '70000' is invalid. It must be a whole number in \[0, 65535\]/,
    );
  });
});

describe('eval', () => {
  const truth = {
    images: [{ id: 1, width: 100, height: 100, file_name: 'a.jpg' }],
    categories: [
      { id: 3, name: 'cell' },
      { id: 7, name: 'none' },
    ],
    annotations: [
      { id: 1, image_id: 1, category_id: 3, bbox: [10, 10, 40, 40], area: 1600, iscrowd: 0 },
    ],
  };
  const found = [{ image_id: 1, category_id: 3, bbox: [10, 10, 40, 40], score: 0.9 }];

  test('--json has the promised form', async () => {
    const args = ['eval', '--annotations', await write('gt.json', truth)];
    args.push('--detections', await write('dt.json', found), '--json');
    const { code, stdout } = await runCli(args);
    expect(code).toBe(0);
    const result = JSON.parse(stdout);
    expect(Object.keys(result)).toEqual(['stats', 'perClassAP']);
    expect(result.stats).toHaveLength(12);
    expect(result.stats[0]).toBeCloseTo(1, 6);
    expect(result.perClassAP).toEqual({ 3: expect.closeTo(1, 6), 7: null });
  });

  test("--voc adds Pascal VOC's numbers", async () => {
    const args = ['eval', '--annotations', await write('gt.json', truth), '--voc', '11point'];
    args.push('--detections', await write('dt.json', found));
    const { voc } = JSON.parse((await runCli([...args, '--json'])).stdout);
    expect(voc).toEqual({
      ...{ interpolation: '11point', AP50: 1, AP: 1 },
      perClassAP50: { 3: 1, 7: null },
    });
    expect((await runCli(args)).stdout).toContain('Pascal VOC (11point): AP50 = 1.000');
  });

  test('for people: the twelve lines and a table', async () => {
    const args = ['eval', '--annotations', await write('gt.json', truth)];
    args.push('--detections', await write('dt.json', found));
    const { stdout } = await runCli(args);
    expect(stdout).toContain('Average Precision  (AP) @[ IoU=0.50:0.95');
    expect(stdout).toContain('cell');
  });

  test.each([
    ['a file that is not there', 'none.json', 'ERR_IO'],
    ['a file that is not JSON', 'text.json', 'ERR_BAD_FILE'],
  ])('%s', async (_, name, expected) => {
    await write('text.json', 'hello');
    const args = ['eval', '--annotations', join(folder, name), '--detections', 'x', '--json'];
    const { code, stdout, stderr } = await runCli(args);
    expect(code).toBe(1);
    expect(JSON.parse(stdout).error.code).toBe(expected);
    expect(stderr).toMatch(/^error: /);
    expect(stderr).not.toMatch(/\n\s+at /);
  });
});

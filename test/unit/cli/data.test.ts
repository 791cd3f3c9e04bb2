import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { runCli } from './run-cli.js';

let folder: string;
let file: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mixpl-data-'));
  await mkdir(join(folder, 'images'));
  const images = [];
  const annotations = [];
  for (let id = 1; id <= 10; id++) {
    const file_name = `${id}.png`;
    const path = join(folder, 'images', file_name);
    const create = { width: 40, height: 30, channels: 3, background: '#345' } as const;
    await sharp({ create }).png().toFile(path);
    images.push({ id, file_name, width: 40, height: 30 });
    annotations.push({
      id,
      image_id: id,
      category_id: 5,
      bbox: [1, 2, 10, 20],
      area: 200,
      iscrowd: 0,
    });
  }
  file = join(folder, 'all.json');
  const categories = [{ id: 5, name: 'box' }];
  await writeFile(file, JSON.stringify({ images, annotations, categories }));
});
afterAll(() => rm(folder, { recursive: true }));

async function json(path: string) {
  return JSON.parse(await readFile(path, 'utf8'));
}

describe('data check', () => {
  test('counts a clean data set', async () => {
    const args = ['data', 'check', file, '--images', join(folder, 'images'), '--files', 'decode'];
    const { code, stdout } = await runCli([...args, '--json']);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      usable: true,
      clean: true,
      images: { total: 10 },
      classes: [{ id: 5, name: 'box', instances: 10, images: 10 }],
    });
    expect((await runCli(args)).stdout).toMatch(
      /box {2}id 5 {2}10 boxes in 10 images\nno problems\n$/,
    );
  });

  test('takes a folder of images, and names a file that is none', async () => {
    const bad = join(folder, 'bad');
    await mkdir(bad);
    await writeFile(join(bad, 'a.jpg'), 'not a picture');
    const { code, stdout } = await runCli(['data', 'check', bad, '--json']);
    // A folder whose every picture is unusable is no data set.
    expect(code).toBe(1);
    expect(JSON.parse(stdout).error.code).toBe('ERR_DATA');
    const good = await runCli(['data', 'check', join(folder, 'images'), '--json']);
    expect(JSON.parse(good.stdout)).toMatchObject({ images: { total: 10, unlabelled: 10 } });
  });

  test('an unlabelled source needs neither annotations nor categories', async () => {
    const { images } = await json(file);
    const path = join(folder, 'image_info.json');
    await writeFile(path, JSON.stringify({ images }));
    const args = ['data', 'check', path, '--images', join(folder, 'images')];
    expect((await runCli(args)).stderr).toContain('--unlabelled of `mixpl data`');
    const { code, stdout } = await runCli([...args, '--unlabelled', '--json']);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ images: { total: 10, unlabelled: 10 } });
    const out = join(folder, 'converted.json');
    const convert = ['data', 'convert', path, '--images', join(folder, 'images'), '--unlabelled'];
    expect((await runCli([...convert, '--out', out])).code).toBe(0);
    expect((await json(out)).images).toHaveLength(10);
  });

  test('--list writes every problem, a line each', async () => {
    const broken = await json(file);
    for (const annotation of broken.annotations) annotation.image_id += 100;
    const path = join(folder, 'all-broken.json');
    await writeFile(path, JSON.stringify(broken));
    const list = join(folder, 'problems.jsonl');
    const args = ['data', 'check', path, '--images', join(folder, 'images'), '--list', list];
    expect((await runCli(args)).stdout).toContain('… and 7 more (--list FILE writes all of them)');
    const lines = (await readFile(list, 'utf8'))
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(lines).toHaveLength(10);
    expect(lines[9]).toMatchObject({ kind: 'unknown-image', file: path, id: 10 });
    expect(lines[9].message).toMatch(/^annotations\[9\]\.image_id must be/);
  });

  test('problems that training refuses give exit code 1, with their place', async () => {
    const broken = await json(file);
    broken.annotations[3].bbox = [0, 0, null, 4];
    broken.annotations[4].image_id = 77;
    const path = join(folder, 'broken.json');
    await writeFile(path, JSON.stringify(broken, null, 1));
    const { code, stdout } = await runCli([
      'data',
      'check',
      path,
      '--images',
      join(folder, 'images'),
    ]);
    expect(code).toBe(1);
    expect(stdout).toMatch(/^refused: 1 annotations of images that are not listed/m);
    expect(stdout).toMatch(/broken\.json:\d+: 5: /);
    // The data of scripts says the same.
    broken.annotations[3].bbox = [5, 5, -4, 4];
    await writeFile(path, JSON.stringify(broken, null, 1));
    const data = await runCli([
      ...['data', 'check', path, '--images', join(folder, 'images'), '--json'],
    ]);
    const { problems, usable } = JSON.parse(data.stdout);
    expect(usable).toBe(false);
    expect(problems.map(({ kind, action }: Record<string, string>) => [kind, action])).toEqual([
      ['unknown-image', 'refuse'],
      ['box-reversed', 'skip'],
    ]);
  });
});

describe('data split', () => {
  const split = (...more: string[]) =>
    runCli(['data', 'split', file, '--images', join(folder, 'images'), '--percent', '30', ...more]);

  test('writes the two files and prints the same hash each time', async () => {
    const out = join(folder, 'split');
    const { code, stdout } = await split('--out', out, '--json');
    expect(code).toBe(0);
    const result = JSON.parse(stdout);
    expect(result).toMatchObject({
      labelled: { file: join(out, 'all.1@30.json'), images: 3 },
      unlabelled: { file: join(out, 'all.1@30-unlabeled.json'), images: 7 },
      hash: expect.stringMatching(/^[0-9a-f]{64}$/),
    });
    expect((await json(result.labelled.file)).annotations).toHaveLength(3);
    expect((await json(result.unlabelled.file)).annotations).toHaveLength(0);
    const again = JSON.parse((await split('--out', out, '--json')).stdout);
    expect(again.hash).toBe(result.hash);
    const other = JSON.parse((await split('--out', out, '--fold', '2', '--json')).stdout);
    expect(other.hash).not.toBe(result.hash);
  });

  test.each([
    [['--percent', 'x'], 2, "argument 'x' is invalid"],
    [['--percent', '300'], 2, "'300' is invalid. It must be a number in (0, 100]."],
    [['--scheme', 'coco'], 2, 'Allowed choices are exact, reference'],
    [['--out', '/proc/none'], 1, 'must be a folder that can be created'],
  ])('refuses %j', async (more, code, message) => {
    const result = await split(...more);
    expect(result.code).toBe(code);
    expect(result.stderr).toContain(message);
    expect(result.stderr).not.toMatch(/\n\s+at /);
  });
});

test('data convert writes COCO, with or without annotations', async () => {
  const out = join(folder, 'converted.json');
  const args = ['data', 'convert', file, '--images', join(folder, 'images'), '--out', out];
  expect(JSON.parse((await runCli([...args, '--json'])).stdout)).toEqual({
    file: out,
    images: 10,
    annotations: 10,
  });
  expect((await json(out)).annotations[0].bbox).toEqual([1, 2, 10, 20]);
  await runCli([...args, '--unlabelled']);
  expect((await json(out)).annotations).toEqual([]);
});

test('control characters in names are shown; JSON has them as they are', async () => {
  const control = {
    images: [1, 2].map((id) => ({ id, file_name: `${id}\x1b[2J.png`, width: 40, height: 30 })),
    annotations: [{ id: 1, image_id: 1, category_id: 1, bbox: [0, 0, 2, 2], area: 4, iscrowd: 0 }],
    categories: [{ id: 1, name: 'red\x1b]0;owned\x07' }],
  };
  const path = join(folder, 'control.json');
  await writeFile(path, JSON.stringify(control));
  const picture = join(folder, 'images', '1.png');
  await copyFile(picture, join(folder, '1\x1b[2J.png'));
  const { stdout } = await runCli(['data', 'check', path]);
  expect(stdout).toContain('red\\x1b]0;owned\\x07');
  expect(stdout).toContain('2\\x1b[2J.png must be an image file, got no such file');
  const unread = await runCli(['predict', '--checkpoint', 'no\x1b[2J.safetensors', 'x.png']);
  expect(unread.stderr).toContain('no\\x1b[2J.safetensors');
  for (const text of [stdout, unread.stderr]) expect(text.includes('\x1b')).toBe(false);
  const json = await runCli(['data', 'check', path, '--json']);
  expect(JSON.parse(json.stdout).classes[0].name).toBe('red\x1b]0;owned\x07');
});

import { execFileSync } from 'node:child_process';
import { readFile, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import sharp, { type Sharp } from 'sharp';
import { describe, expect, test, vi } from 'vitest';
import { checkDataset } from '../../../lib/data/check.js';
import { makeDataset } from '../../../lib/data/dataset.js';
import { type DecodeOptions, decodeImage, readImageSize } from '../../../lib/data/decode.js';
import { ImageCache } from '../../../lib/data/image-cache.js';
import { loadImageFolder } from '../../../lib/data/image-folder.js';
import { readHeader } from '../../../lib/data/image-header.js';
import type { DecodedImage, ImageRecord } from '../../../lib/data/types.js';
import { noise, put, putImage, temporaryFolder } from './temporary.js';

const folder = await temporaryFolder();
const size = { width: 64, height: 48 };
const jpeg = await readFile(await putImage(folder, 'good.jpg'));
const cut = await put(folder, 'cut.jpg', jpeg.subarray(0, jpeg.length / 2));
const text = await put(folder, 'text.jpg', 'not an image');
const empty = await put(folder, 'empty.jpg', '');
const header = await put(folder, 'header.jpg', jpeg.subarray(0, 100));
const none = `${folder}/none.jpg`;

describe('decodeImage', () => {
  test('PNG pixels come out as they went in', async () => {
    const path = await putImage(folder, 'a.png');
    const decoded = await decodeImage(path);
    expect(decoded).toMatchObject(size);
    expect(decoded.data).toBeInstanceOf(Uint8Array);
    expect(Buffer.from(decoded.data).equals(await noise(size).raw().toBuffer())).toBe(true);
  });

  test('JPEG pixels are those of the plain decoder, with or without a colour profile', async () => {
    const raw = await sharp(jpeg).raw().toBuffer();
    expect(Buffer.from((await decodeImage(`${folder}/good.jpg`)).data).equals(raw)).toBe(true);
    const tagged = await noise(size).jpeg().withIccProfile('p3').toBuffer();
    const plain = await sharp(tagged, { ignoreIcc: true }).raw().toBuffer();
    const path = await put(folder, 'p3.jpg', tagged);
    expect(Buffer.from((await decodeImage(path)).data).equals(plain)).toBe(true);
  });

  test('bytes are as good as their file, be they a part of others', async () => {
    const whole = Buffer.concat([Buffer.alloc(7), jpeg, Buffer.alloc(7)]);
    const upload = new Uint8Array(whole.buffer, whole.byteOffset + 7, jpeg.length);
    expect(await decodeImage(upload)).toEqual(await decodeImage(`${folder}/good.jpg`));
    expect(await readImageSize(upload)).toEqual(size);
  });

  test.each([
    [
      jpeg.subarray(0, jpeg.length / 2),
      'ERR_BAD_FILE',
      /^decodeImage: source of \d+ bytes: must be a readable image, got /,
    ],
    [
      Buffer.from('not an image'),
      'ERR_BAD_FILE',
      /source of 12 bytes: .* unsupported image format$/,
    ],
    [new Uint8Array(), 'ERR_BAD_FILE', /source of 0 bytes: must be an image, got an empty file$/],
    [
      new Float32Array(4),
      'ERR_DTYPE',
      /source must be a path or a Uint8Array .* got Float32Array$/,
    ],
    [undefined, 'ERR_DTYPE', /got undefined$/],
  ])('of bytes that are no image it says so (%#)', async (source, code, message) => {
    const decoding = decodeImage(source as Uint8Array);
    await expect(decoding).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
  });

  test('nor do other bytes have a size', async () => {
    for (const [source, code, message] of [
      [
        Buffer.from('not an image'),
        'ERR_BAD_FILE',
        /^readImageSize: source of 12 bytes: .* format$/,
      ],
      [
        jpeg.subarray(0, 100),
        'ERR_BAD_FILE',
        /^readImageSize: source of 100 bytes: must be a readable image, got /,
      ],
      [new Uint8Array(), 'ERR_BAD_FILE', /^readImageSize: source of 0 bytes: .* an empty file$/],
      [7, 'ERR_DTYPE', /^readImageSize: source must be a path or a Uint8Array .* got Number$/],
    ] as const)
      await expect(readImageSize(source as Uint8Array)).rejects.toMatchObject({
        code,
        message: expect.stringMatching(message),
      });
  });

  test.each([
    ['grey.jpg', noise(size).greyscale()],
    ['grey16.png', noise(size).greyscale().toColourspace('grey16').png()],
    ['cmyk.jpg', noise(size).toColourspace('cmyk')],
    ['rgb16.png', noise(size).toColourspace('rgb16').png()],
    ['alpha.png', noise(size).ensureAlpha(0.5)],
    ['palette.png', noise(size).png({ palette: true })],
    ['image.webp', noise(size)],
    ['image.gif', noise(size)],
    ['image.tif', noise(size)],
  ])('%s becomes 8-bit RGB', async (name, image) => {
    await image.toFile(`${folder}/${name}`);
    const { data, width, height } = await decodeImage(`${folder}/${name}`);
    expect({ width, height }).toEqual(size);
    expect(data).toHaveLength(3 * 64 * 48);
    if (name.startsWith('grey')) expect([data[0], data[0]]).toEqual([data[1], data[2]]);
  });

  test.each([1, 2, 3, 4, 5, 6, 7, 8])('EXIF orientation %i is applied', async (orientation) => {
    const path = `${folder}/exif${orientation}.png`;
    await noise(size).withMetadata({ orientation }).toFile(path);
    const { data, width, height } = await decodeImage(path);
    expect([width, height]).toEqual(orientation > 4 ? [48, 64] : [64, 48]);
    expect(await readImageSize(path)).toEqual({ width, height });
    // The corner that orientation puts at the top left.
    const raw = await noise(size).raw().toBuffer();
    const [x, y] = [
      [0, 0],
      [63, 0],
      [63, 47],
      [0, 47],
      [0, 0],
      [0, 47],
      [63, 47],
      [63, 0],
    ][orientation - 1]!;
    const at = 3 * (64 * y! + x!);
    expect([...data.subarray(0, 3)]).toEqual([...raw.subarray(at, at + 3)]);
  });

  test('a truncated file is refused with its path, or filled up', async () => {
    await expect(decodeImage(cut)).rejects.toMatchObject({
      code: 'ERR_BAD_FILE',
      message: `${cut}: must be a readable image, got VipsJpeg: premature end of JPEG image`,
    });
    const filled = await decodeImage(cut, { damaged: 'accept' });
    const whole = await decodeImage(`${folder}/good.jpg`);
    expect(filled.data.subarray(0, 1000)).toEqual(whole.data.subarray(0, 1000));
    expect(filled.data.subarray(-1000)).not.toEqual(whole.data.subarray(-1000));
    const png = await readFile(`${folder}/a.png`);
    const cutPng = await put(folder, 'cut.png', png.subarray(0, png.length / 2));
    await expect(decodeImage(cutPng)).rejects.toMatchObject({ code: 'ERR_BAD_FILE' });
  });

  test('one of too many pixels is refused by its header', async () => {
    const bytes = await noise(size).jpeg().toBuffer();
    const frame = bytes.indexOf(Buffer.of(0xff, 0xc0)); // then length, depth, height, width
    bytes.writeUInt16BE(20_000, frame + 5);
    bytes.writeUInt16BE(20_000, frame + 7);
    const large = await put(folder, 'large.jpg', bytes);
    const error = {
      code: 'ERR_BAD_FILE',
      message: `${large}: must be a readable image, got one of more than 268402689 pixels`,
    };
    await expect(decodeImage(large)).rejects.toMatchObject(error);
    await expect(readImageSize(large)).rejects.toMatchObject(error);
  });

  test.each(['jpeg', 'png', 'webp', 'tiff', 'gif'] as const)(
    'maxPixels limits the pixels of a file, %s',
    async (format) => {
      const bytes = await noise(size)[format]().toBuffer();
      expect(await readImageSize(bytes)).toEqual(size);
      expect(await decodeImage(bytes, { maxPixels: 64 * 48 })).toMatchObject(size);
      await expect(decodeImage(bytes, { maxPixels: 64 * 48 - 1 })).rejects.toMatchObject({
        code: 'ERR_BAD_FILE',
        message: `decodeImage: source of ${bytes.length} bytes: must be a readable image, got one of more than 3071 pixels`,
      });
    },
  );

  test.each([
    [{ maxPixels: 0 }, 'decodeImage: maxPixels must be an integer >= 1, got 0'],
    [{ maxPixels: Number.NaN }, 'decodeImage: maxPixels must be an integer >= 1, got NaN'],
    [{ maxPixel: 9 }, "decodeImage: unknown option 'maxPixel'; did you mean 'maxPixels'?"],
  ])('refuses %o', (options, message) =>
    expect(decodeImage(jpeg, options as DecodeOptions)).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message,
    }),
  );

  test.each([
    [text, 'ERR_BAD_FILE', 'a file that contains unsupported image format'],
    [empty, 'ERR_BAD_FILE', 'got an empty file'],
    [header, 'ERR_BAD_FILE', 'a file that has corrupt header'],
    [none, 'ERR_IO', 'ENOENT'],
    [folder, 'ERR_IO', 'EISDIR'],
  ])('%s', async (path, code, message) => {
    const error = { code, message: expect.stringContaining(message) };
    await expect(decodeImage(path, { damaged: 'accept' })).rejects.toMatchObject(error);
    await expect(readImageSize(path)).rejects.toMatchObject(error);
  });
});

describe('readHeader', () => {
  const exif = (orientation: number) => noise(size).withMetadata({ orientation });
  const long = noise(size)
    .withExif({ IFD0: { ImageDescription: 'x'.repeat(20_000) } })
    .withIccProfile('p3');
  test.each([
    ['plain.jpg', noise(size)],
    ['progressive.jpg', noise(size).jpeg({ progressive: true, mozjpeg: true })],
    ['grey.jpg', noise(size).greyscale()],
    ['cmyk.jpg', noise(size).toColourspace('cmyk')],
    ['long.jpg', long],
    ['plain.png', noise(size)],
    ['palette.png', noise(size).png({ palette: true })],
    ['grey16.png', noise(size).greyscale().toColourspace('grey16').png()],
    ...[1, 2, 3, 4, 5, 6, 7, 8].map((o) => [`turned-${o}.jpg`, exif(o)] as const),
  ] as [string, Sharp][])('reads %s as the decoder does', async (name, image) => {
    const path = join(await temporaryFolder(), name);
    await image.toFile(path);
    const { autoOrient } = await sharp(path).metadata();
    const { width, height } = autoOrient;
    expect(await readHeader(path)).toEqual({ width, height });
    expect(await readHeader(await readFile(path))).toEqual({ width, height });
  });

  test('leaves the rest to the decoder', async () => {
    const root = await temporaryFolder();
    await noise(size).withMetadata({ orientation: 6 }).toFile(`${root}/turned.png`);
    await noise(size).toFile(`${root}/a.webp`);
    const [odd, turned] = [Buffer.from(jpeg), await exif(6).jpeg().toBuffer()];
    odd[odd.indexOf(Buffer.of(0xff, 0xc0)) + 1] = 0xc9; // arithmetic coding
    turned.write('XX', turned.indexOf('Exif\0\0') + 6); // no byte order
    const depth = await readFile(`${folder}/a.png`);
    depth[24] = 3;
    await put(root, 'depth.png', depth);
    await put(root, 'before-scan.jpg', jpeg.subarray(0, jpeg.indexOf(Buffer.of(0xff, 0xda))));
    await put(root, 'odd.jpg', odd);
    await put(root, 'damaged.jpg', turned);
    for (const path of [
      text,
      empty,
      header,
      none,
      folder,
      ...['turned.png', 'a.webp', 'odd.jpg', 'depth.png', 'before-scan.jpg', 'damaged.jpg'].map(
        (name) => join(root, name),
      ),
    ])
      expect(await readHeader(path), path).toBeUndefined();
    expect(await readImageSize(`${root}/turned.png`)).toEqual({ width: 48, height: 64 });
  });

  test('of whatever bytes is a size or none', () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(600), fc.nat(255)), { maxLength: 6 }),
        async (changes) => {
          const bytes = Buffer.from(jpeg);
          for (const [at, value] of changes) bytes[at] = value;
          const found = await readHeader(await put(folder, 'fuzzed.jpg', bytes));
          expect(await readHeader(bytes)).toEqual(found);
          if (found) expect(Math.min(found.width, found.height)).toBeGreaterThan(0);
        },
      ),
      { numRuns: 200 },
    ));
});

describe('loadImageFolder', () => {
  test('takes every image below, in order of name, by its header', async () => {
    const root = await temporaryFolder();
    await putImage(root, 'b/2.png', { width: 10, height: 20 });
    await putImage(root, 'b/10.png', { width: 30, height: 40 });
    await putImage(root, 'a.JPEG'.toLowerCase());
    await put(root, 'Z.JPG', jpeg);
    await put(root, 'notes.txt', 'x');
    await put(root, '.hidden/x.jpg', 'x');
    await put(root, '._a.jpg', 'x');
    const dataset = await loadImageFolder(root, { categories: [{ id: 4, name: 'x' }] });
    expect(
      dataset.images.map(({ id, fileName, width, height }) => [id, fileName, width, height]),
    ).toEqual([
      [1, 'Z.JPG', 64, 48],
      [2, 'a.jpeg', 64, 48],
      [3, 'b/10.png', 30, 40],
      [4, 'b/2.png', 10, 20],
    ]);
    expect(dataset.images.every(({ annotations }) => annotations === null)).toBe(true);
    expect(dataset.categories).toEqual([{ id: 4, name: 'x' }]);
    const flat = await loadImageFolder(root, { recursive: false });
    expect(flat.images).toHaveLength(2);
  });

  test('follows links, to a folder once and not in circles; what is neither file nor folder is none', async () => {
    const [root, elsewhere] = [await temporaryFolder(), await temporaryFolder()];
    await putImage(root, 'own/a.png');
    await putImage(elsewhere, 'part/b.png');
    await symlink(elsewhere, `${root}/Linked`);
    await symlink(`${root}/own`, `${root}/Again`);
    await symlink(root, `${elsewhere}/part/round`);
    await symlink(`${root}/own/a.png`, `${root}/c.png`);
    await symlink(`${root}/nothing`, `${root}/nowhere`);
    execFileSync('mkfifo', [`${root}/pipe.png`]);
    await symlink(`${root}/pipe.png`, `${root}/to-pipe.png`);
    const names = async (recursive: boolean) =>
      (await loadImageFolder(root, { recursive })).images.map(({ fileName }) => fileName);
    expect(await names(true)).toEqual(['Linked/part/b.png', 'c.png', 'own/a.png']);
    expect(await names(false)).toEqual(['c.png']);
  });

  test('unreadable files are refused with their reasons, or skipped and counted', async () => {
    const root = await temporaryFolder();
    await putImage(root, 'good.png');
    await put(root, 'text.jpg', 'hello');
    await put(root, 'empty.png', '');
    await put(root, 'bitmap.bmp', 'BM0000');
    await expect(loadImageFolder(root)).rejects.toMatchObject({
      code: 'ERR_BAD_FILE',
      message: expect.stringMatching(
        /'unreadable-image', 3\):\n.*bitmap\.bmp.*\n.*empty\.png.*got an empty file\n.*text\.jpg.*unsupported image format\ntry the policy/,
      ),
    });
    const progress = vi.fn();
    const dataset = await loadImageFolder(root, {
      policy: { 'unreadable-image': 'skip' },
      onProgress: progress,
    });
    expect(dataset.images.map(({ fileName }) => fileName)).toEqual(['good.png']);
    expect(dataset.report.problems).toMatchObject([{ kind: 'unreadable-image', count: 3 }]);
    expect(progress).toHaveBeenLastCalledWith(4, 4);
  });

  test('a folder without images, a file, nothing', async () => {
    const root = await temporaryFolder();
    await put(root, 'notes.txt', 'x');
    await expect(loadImageFolder(root)).rejects.toMatchObject({
      code: 'ERR_DATA',
      message: expect.stringContaining(`${root} must contain images`),
    });
    await expect(loadImageFolder(`${root}/notes.txt`)).rejects.toMatchObject({ code: 'ERR_IO' });
    await expect(loadImageFolder(`${root}/none`)).rejects.toMatchObject({ code: 'ERR_IO' });
    await put(root, 'bad.jpg', '');
    await expect(loadImageFolder(root, { policy: { 'unreadable-image': 'skip' } })).rejects.toThrow(
      "must have at least one image, got none (left out: 1 'unreadable-image')",
    );
  });
});

describe('ImageCache', () => {
  const image = (bytes: number): DecodedImage => ({
    data: new Uint8Array(bytes),
    width: 1,
    height: 1,
  });

  test('decodes once, also for requests at the same time; keeps the last used', async () => {
    const decode = vi.fn(async (path: string) => image(Number(path)));
    const cache = new ImageCache({ maxBytes: 100, decode });
    const [first, again] = await Promise.all([cache.get('40'), cache.get('40')]);
    expect(again).toBe(first);
    await cache.get('50');
    expect(await cache.get('40')).toBe(first);
    await cache.get('30'); // 50 goes, being used least recently
    expect(cache.stats).toEqual({ images: 2, bytes: 70, hits: 2, misses: 3 });
    expect(await cache.get('40')).toBe(first);
    await cache.get('50');
    expect(decode.mock.calls.flat()).toEqual(['40', '50', '30', '50']);
    await cache.get('101'); // too large to hold
    expect(cache.stats.bytes).toBeLessThanOrEqual(100);
    cache.clear();
    expect(cache.stats).toMatchObject({ images: 0, bytes: 0 });
  });

  test('does not keep a failure', async () => {
    const decode = vi.fn().mockRejectedValueOnce(new Error('no')).mockResolvedValueOnce(image(1));
    const cache = new ImageCache({ decode });
    await expect(cache.get('a')).rejects.toThrow('no');
    await expect(cache.get('a')).resolves.toMatchObject({ width: 1 });
  });

  test('an ImageCache of 0 bytes decodes every time; below 0 is an error', async () => {
    const decode = vi.fn(async () => image(1));
    const cache = new ImageCache({ maxBytes: 0, decode });
    await cache.get('a');
    await cache.get('a');
    expect(decode).toHaveBeenCalledTimes(2);
    expect(() => new ImageCache({ maxBytes: -1 })).toThrow('must be at least 0, got -1');
  });
});

describe('checkDataset', () => {
  const categories = [
    { id: 1, name: 'cat' },
    { id: 2, name: 'dog' },
  ];
  const record = (path: string, more: Partial<ImageRecord> = {}): ImageRecord => ({
    id: 1,
    fileName: path.replace(`${folder}/`, ''),
    path,
    ...size,
    annotations: {
      boxes: Float32Array.of(0, 0, 10, 10, 0, 0, 64, 48, 0, 0, 200, 100, 0, 0, 60, 40),
      labels: Int32Array.of(0, 0, 0, 1),
      crowd: Uint8Array.of(0, 0, 0, 1),
      areas: new Float64Array(4),
      ids: new Float64Array(4),
    },
    ...more,
  });

  test('counts classes and sizes; crowds apart', async () => {
    const images = [record(`${folder}/good.jpg`), record(`${folder}/a.png`, { annotations: null })];
    const check = await checkDataset(makeDataset({ name: 'x', source: 'y', categories, images }));
    expect(check).toMatchObject({
      images: { total: 2, unlabelled: 1, empty: 0, portrait: 0, smallest: size, largest: size },
      annotations: 4,
      crowd: 1,
      classes: [
        { name: 'cat', instances: 3, crowd: 0, images: 1 },
        { name: 'dog', instances: 0, crowd: 1, images: 1 },
      ],
      boxSizes: {
        small: 1,
        medium: 1,
        large: 1,
        histogram: [
          { from: 8, to: 16, count: 1 },
          { from: 16, to: 32, count: 0 },
          { from: 32, to: 64, count: 1 },
          { from: 64, to: 128, count: 0 },
          { from: 128, to: 256, count: 1 },
        ],
      },
      clean: true,
    });
  });

  test.each([
    ['none', []],
    [
      'header',
      [
        ['missing-image', 1],
        ['unreadable-image', 3],
        ['size-mismatch', 1],
      ],
    ],
    [
      'decode',
      [
        ['missing-image', 1],
        ['unreadable-image', 4],
        ['size-mismatch', 1],
      ],
    ],
  ] as const)('files: %s', async (files, expected) => {
    const images = [
      ...[cut, text, empty, header, none].map((path) => record(path)),
      record(`${folder}/good.jpg`, { width: 48, height: 64 }),
    ];
    const dataset = makeDataset({ name: 'x', source: 'y', categories, images });
    const onProgress = vi.fn();
    const check = await checkDataset(dataset, { files, onProgress });
    expect(check.problems.map(({ kind, count }) => [kind, count])).toEqual(expected);
    expect(check.clean).toBe(files === 'none');
    if (files !== 'none') expect(onProgress).toHaveBeenLastCalledWith(6, 6);
  });
});

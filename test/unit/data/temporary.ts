import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import sharp, { type Sharp } from 'sharp';
import { Random } from '../../../lib/random.js';

export { temporaryFolder } from '../temporary-folder.js';

/** Writes a file, its folders too; objects as JSON. @returns its path */
export async function put(folder: string, name: string, content: unknown): Promise<string> {
  const path = join(folder, name);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(
    path,
    typeof content === 'string' || content instanceof Uint8Array
      ? content
      : JSON.stringify(content),
  );
  return path;
}

/** Random pixels: nothing about them compresses, so a file cut in half lacks half of them. */
export function noise(size: { width: number; height: number }, seed = 1): Sharp {
  const random = new Random(seed);
  const data = Uint8Array.from({ length: size.width * size.height * 3 }, () =>
    random.integer(0, 256),
  );
  return sharp(data, { raw: { ...size, channels: 3 } });
}

/** Writes a small random image, in the format of the name's extension. @returns its path */
export async function putImage(
  folder: string,
  name: string,
  size = { width: 64, height: 48 },
): Promise<string> {
  const path = join(folder, name);
  await mkdir(dirname(path), { recursive: true });
  await noise(size).toFile(path);
  return path;
}

/** What the drawings of images are called. */
import { realpath } from 'node:fs/promises';
import { basename, dirname, join, parse, resolve } from 'node:path';

/** An image file, and its path below the folder that was named (without a folder: its own name). */
export interface NamedImage {
  file: string;
  name: string;
}

/**
 * Where a PNG of each image goes, in their order: `folder/sub/a.png` for `sub/a.jpg`. Of equal names the
 * later ones are numbered (`a-2.png`). In a folder that images come from the extension stays
 * (`a.jpg.png`), so that no image is overwritten.
 */
export async function drawingPaths(
  folder: string,
  images: readonly NamedImage[],
): Promise<string[]> {
  const files = await Promise.all(images.map(({ file }) => truePath(file)));
  const taken = new Set(files);
  const sources = new Set(files.map(dirname));
  const paths: string[] = [];
  for (const { name } of images) {
    const below = dirname(join(folder, name));
    const place = await truePath(below);
    const stem = sources.has(place) ? basename(name) : parse(name).name;
    let free = `${stem}.png`;
    for (let n = 2; taken.has(join(place, free)); n++) free = `${stem}-${n}.png`;
    taken.add(join(place, free));
    paths.push(join(below, free));
  }
  return paths;
}

/** Without links; of what is not there yet, the path that it would have. */
async function truePath(path: string): Promise<string> {
  const whole = resolve(path);
  try {
    return await realpath(whole);
  } catch {
    const parent = dirname(whole);
    return parent === whole ? whole : join(await truePath(parent), basename(whole));
  }
}

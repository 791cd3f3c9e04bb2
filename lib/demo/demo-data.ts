import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { writeFileWhole } from '../files.js';
import { Random } from '../random.js';
import { demoClasses, drawScene } from './scene.js';

export interface DemoDataOptions {
  /** Images with annotations that training may use. */
  labelled: number;
  /** Images without. */
  unlabelled: number;
  /** Images to evaluate on. */
  test: number;
  width: number;
  height: number;
  seed: number;
}

/** Where the parts of the demo's data set are. */
export interface DemoData {
  labelled: string;
  /** The unlabelled images with their true boxes, for the fully labelled ceiling only. */
  all: string;
  unlabelled: string;
  test: string;
  images: string;
}

/**
 * Draws the demo's data set into `directory`: PNG images and COCO files. Deterministic; a directory
 * that already holds the same set is left as it is.
 */
export async function makeDemoData(directory: string, options: DemoDataOptions): Promise<DemoData> {
  const images = join(directory, 'images');
  const file = (name: string) => join(directory, `${name}.json`);
  const paths: DemoData = {
    labelled: file('labelled'),
    all: file('all'),
    unlabelled: file('unlabelled'),
    test: file('test'),
    images,
  };
  const stamp = JSON.stringify({ version: 2, ...options });
  const stampFile = join(directory, 'stamp.json');
  if ((await readFile(stampFile, 'utf8').catch(() => '')) === stamp) return paths;

  await mkdir(images, { recursive: true });
  const { default: sharp } = await import('sharp');
  const root = new Random(options.seed);
  const total = options.labelled + options.unlabelled + options.test;
  const records: CocoImage[] = [];
  const annotations: CocoAnnotation[] = [];
  for (let i = 0; i < total; i++) {
    const scene = drawScene(root.fork('scene', i), options);
    const fileName = `scene-${String(i).padStart(4, '0')}.png`;
    await sharp(scene.data, { raw: { width: scene.width, height: scene.height, channels: 3 } })
      .png({ compressionLevel: 3 })
      .toFile(join(images, fileName));
    records.push({ id: i + 1, file_name: fileName, width: scene.width, height: scene.height });
    for (const object of scene.objects) {
      const [x1, y1, x2, y2] = object.box;
      annotations.push({
        id: annotations.length + 1,
        image_id: i + 1,
        category_id: object.label + 1,
        bbox: [x1, y1, x2 - x1, y2 - y1],
        area: object.area,
        iscrowd: 0,
      });
    }
  }
  const categories = demoClasses.map((name, i) => ({ id: i + 1, name }));
  const part = (from: number, to: number, withAnnotations: boolean) => {
    const chosen = records.slice(from, to);
    const ids = new Set(chosen.map((image) => image.id));
    return JSON.stringify({
      images: chosen,
      annotations: withAnnotations ? annotations.filter((a) => ids.has(a.image_id)) : [],
      categories,
    });
  };
  const unlabelledEnd = options.labelled + options.unlabelled;
  await writeFileWhole(paths.labelled, [part(0, options.labelled, true)]);
  await writeFileWhole(paths.all, [part(0, unlabelledEnd, true)]);
  await writeFileWhole(paths.unlabelled, [part(options.labelled, unlabelledEnd, false)]);
  await writeFileWhole(paths.test, [part(unlabelledEnd, total, true)]);
  await writeFileWhole(stampFile, [stamp]);
  return paths;
}

interface CocoImage {
  id: number;
  file_name: string;
  width: number;
  height: number;
}
interface CocoAnnotation {
  id: number;
  image_id: number;
  category_id: number;
  bbox: [number, number, number, number];
  area: number;
  iscrowd: 0;
}

/** Grad-CAMs as images: the heat over what the student saw, with boxes. */
import type { Instances } from '../augment/index.js';
import type { DecodedImage } from '../image/composition.js';
import { composeToImage } from '../image/index.js';
import { type LegendEntry, type Tile, writePanel } from '../report/pictures.js';
import type { CamView, PictureCams } from './cam.js';
import { viewNames } from './student-views.js';

/** Boxes by what they are. */
export const boxColors = {
  found: { name: 'object that a pseudo label found', color: '#00c853' },
  missed: { name: 'object that no pseudo label found', color: '#ff1744' },
  wrong: { name: 'pseudo label without an object', color: '#e040fb' },
  unjudged: { name: 'pseudo label', color: '#00b0ff' },
} as const satisfies Record<string, LegendEntry>;
type BoxKind = keyof typeof boxColors;
const kinds = Object.keys(boxColors) as BoxKind[];

/** Sides of a tile are at most this. */
const longest = 640;

/**
 * Writes weak | strong | mixup | mosaic as a PNG. Colours go from no heat to what 99% of a view's pixels are below: a
 * hot corner, as padding makes them, leaves the rest visible.
 * @throws MixplError ERR_IO
 */
export async function writeCams(path: string, { views }: PictureCams): Promise<void> {
  const tiles: Tile[] = [];
  for (const name of viewNames) {
    const view = views[name];
    if (view) tiles.push(await tileOf(`${name}, ${view.cam.level}`, view));
  }
  const present = Object.values(views).flatMap((view) => view ?? []);
  const legend = kinds.filter((kind) => present.some((view) => view[kind].labels.length > 0));
  await writePanel(
    path,
    [tiles],
    legend.map((kind) => boxColors[kind]),
  );
}

async function tileOf(title: string, view: CamView): Promise<Tile> {
  const { composition, cam } = view;
  const whole = heated(await composeToImage(composition), cam.heat.values);
  const scale = Math.min(1, longest / Math.max(whole.width, whole.height));
  const image = await reduced(whole, scale);
  const parts = kinds.map((kind): [BoxKind, Instances] => [kind, view[kind]]);
  return {
    title,
    image,
    boxes: {
      boxes: Float32Array.from(parts.flatMap(([, { boxes }]) => [...boxes].map((v) => v * scale))),
      labels: Int32Array.from(parts.flatMap(([, { labels }]) => [...labels])),
      colors: parts.flatMap(([kind, { labels }]) =>
        Array.from(labels, () => boxColors[kind].color),
      ),
    },
  };
}

async function reduced(image: DecodedImage, scale: number): Promise<DecodedImage> {
  if (scale === 1) return image;
  const { default: sharp } = await import('sharp');
  const { data, info } = await sharp(image.data, {
    raw: { width: image.width, height: image.height, channels: 3 },
  })
    .resize(Math.max(1, Math.round(image.width * scale)))
    .raw()
    .toBuffer({ resolveWithObject: true });
  return { data, width: info.width, height: info.height };
}

/** Cividis, perceptually even and the same to eyes that see no red or green (Nuñez, Anderton and Renslow 2018). */
const colors = [
  [0, 32, 77],
  [0, 51, 111],
  [57, 72, 107],
  [87, 92, 109],
  [112, 113, 115],
  [138, 135, 121],
  [166, 157, 117],
  [196, 181, 108],
  [228, 207, 91],
  [255, 234, 70],
] as const;

/** Weight of the map's colour beside the image: where it is coldest, and how much more where it is hottest. */
const opacity = { least: 0.3, more: 0.5 };

function heated(image: DecodedImage, heat: Float32Array): DecodedImage {
  const most = brightest(heat);
  const data = new Uint8Array(image.data.length);
  heat.forEach((value, i) => {
    const share = most > 0 ? Math.min(value / most, 1) : 0;
    const weight = opacity.least + opacity.more * share;
    const at = share * (colors.length - 1);
    const low = Math.min(Math.floor(at), colors.length - 2);
    for (let c = 0; c < 3; c++) {
      const [from, to] = [colors[low]![c]!, colors[low + 1]![c]!];
      const color = from + (at - low) * (to - from);
      data[3 * i + c] = Math.round((1 - weight) * image.data[3 * i + c]! + weight * color);
    }
  });
  return { ...image, data };
}

/** The heat that gets the brightest colour; the hottest where 99% of the pixels have none. */
export function brightest(heat: Float32Array): number {
  const ascending = heat.slice().sort();
  return ascending[Math.floor(0.99 * (ascending.length - 1))]! || (ascending.at(-1) ?? 0);
}

/**
 * Swin Transformers in other layouts. Our names are mmdetection's; our order of what patch merging takes is
 * that of an OHWI convolution, as everywhere: cells row by row, of each cell its channels.
 *
 * Sources: mmdetection 3.x `swin_converter`, the official files (microsoft/Swin-Transformer), timm before
 * and after 0.9, torchvision 0.14 `swin_t`.
 */
import { rangesInTurns, unsetFloats } from '../../turns.js';
import { type Codec, resizedTable } from '../codec.js';
import type { LayoutName } from '../layouts.js';

const prefix = 'backbone.';

/** A parameter of ours that belongs to a Swin Transformer. */
export const isSwin = (own: string) => /^backbone\.(patch_embed|stages|norm\d)\./.test(own);

/** A name in a file of the network alone. */
export const isBareSwin = (name: string) =>
  /^(patch_embed|(layers|stages)\.\d+|features\.\d+)\./.test(name);

/** State that follows from the options, and what only a classifier has. */
export const isUnusedOfSwin = (name: string) =>
  /(^|\.)(relative_position_index|attn_mask)$/.test(name);
export const isClassifierOfSwin = (name: string) => /^(head|norm)\./.test(name);

/** The norms of the outputs: no classifier has them. */
export const isFreshInSwin = (own: string) => /^backbone\.norm\d\./.test(own);

/**
 * Name of one of our parameters in a file of the network alone.
 * @param stored the file's names
 */
export function bareSwinName(
  layout: LayoutName,
  own: string,
  stored: readonly string[],
): string | null {
  if (!isSwin(own)) return null;
  const name = own.slice(prefix.length);
  if (layout === 'mixpl' || layout === 'mmdetection') return name;
  if (isFreshInSwin(own)) return null;
  return layout === 'torchvision' ? torchvisionName(name) : officialName(name, stored);
}

function officialName(name: string, stored: readonly string[]): string {
  const merging = /^stages\.(\d+)\.(downsample\..*)$/.exec(name);
  // Since timm 0.9 a stage begins with its merging, where it ended with it.
  const later = stored.some((n) => n.startsWith('layers.3.downsample.')) ? 1 : 0;
  if (merging) return `layers.${Number(merging[1]) + later}.${merging[2]}`;
  return name
    .replace(/^patch_embed\.projection\./, 'patch_embed.proj.')
    .replace(/^stages\./, 'layers.')
    .replace('.attn.w_msa.', '.attn.')
    .replace('.ffn.layers.0.0.', '.mlp.fc1.')
    .replace('.ffn.layers.1.', '.mlp.fc2.');
}

/** A list of modules: the embedding, then stages and the mergings between them. */
function torchvisionName(name: string): string {
  return name
    .replace(/^patch_embed\.projection\./, 'features.0.0.')
    .replace(/^patch_embed\.norm\./, 'features.0.2.')
    .replace(/^stages\.(\d+)\.downsample\./, (_, s) => `features.${2 * Number(s) + 2}.`)
    .replace(/^stages\.(\d+)\.blocks\./, (_, s) => `features.${2 * Number(s) + 1}.`)
    .replace('.attn.w_msa.', '.attn.')
    .replace('.ffn.layers.0.0.', '.mlp.0.')
    .replace('.ffn.layers.1.', '.mlp.3.');
}

/** How a tensor is stored that others have in another order, or of another size. */
export function swinCodec(
  layout: LayoutName,
  { name, shape }: { name: string; shape: readonly number[] },
): Codec | undefined {
  if (!isSwin(name)) return undefined;
  if (name.endsWith('.relative_position_bias_table')) return resizedTable(shape);
  if (layout === 'mixpl' || !/\.downsample\.(norm|reduction)\./.test(name)) return undefined;
  const columns = shape.at(-1)!;
  return permutedColumns(shape, layout === 'mmdetection' ? unfolded(columns) : byColumns(columns));
}

/** Place in the file of each of our numbers: mmdetection unfolds, which has a channel's cells together. */
function unfolded(columns: number): number[] {
  const channels = columns / 4;
  return Array.from({ length: columns }, (_, i) => 4 * (i % channels) + Math.floor(i / channels));
}

/** The official order has the cells column by column. */
function byColumns(columns: number): number[] {
  const channels = columns / 4;
  return Array.from({ length: columns }, (_, i) => {
    const cell = Math.floor(i / channels);
    return [0, 2, 1, 3][cell]! * channels + (i % channels);
  });
}

function permutedColumns(shape: readonly number[], place: readonly number[]): Codec {
  const columns = place.length;
  const offset = (i: number) => i - (i % columns) + place[i % columns]!;
  return {
    shape,
    async toOwn(stored) {
      const out = unsetFloats(stored.length);
      for await (const [from, to] of rangesInTurns(out.length))
        for (let i = from; i < to; i++) out[i] = stored[offset(i)]!;
      return out;
    },
    async fromOwn(own) {
      const out = unsetFloats(own.length);
      for await (const [from, to] of rangesInTurns(out.length))
        for (let i = from; i < to; i++) out[offset(i)] = own[i]!;
      return out;
    },
  };
}

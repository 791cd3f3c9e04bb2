// What a kernel's PTX does with memory and tensor cores, counted as written: a loop's body once.

/** Kernels of a PTX text: mangled name and counts by kind, see `kindOf`. */
export function countInstructions(ptx) {
  const kernels = [];
  let counts = null;
  for (const line of ptx.split('\n')) {
    const entry = /\.entry\s+([\w$]+)/.exec(line);
    if (entry) kernels.push({ name: entry[1], counts: (counts = {}) });
    else if (/^\.(visible |weak )?\.?func\b/.test(line)) counts = null;
    const kind = counts && kindOf(line);
    if (kind) counts[kind] = (counts[kind] ?? 0) + 1;
  }
  return kernels;
}

const bytesOf = { 8: 1, 16: 2, 32: 4, 64: 8, 128: 16 };

/**
 * Of an instruction: `load16` and `store16` (16 bytes of global memory), `load` and `store` (fewer),
 * `copy16` and `copy` (cp.async), `ldmatrix`, `mma.SHAPE`, `wgmma`; nothing for others. An address whose
 * space the compiler does not know counts as global.
 */
export function kindOf(line) {
  const [, name, operands] = /^\s*(?:\{\s*)?(?:@!?%p\d+\s+)?([a-z][\w.:]*)\s+(.*)/.exec(line) ?? [];
  if (!name) return null;
  const parts = name.split('.');
  if (name.startsWith('wgmma.mma_async')) return 'wgmma';
  if (parts[0] === 'mma') return `mma.${parts.find((part) => /^m\d+n\d+k\d+$/.test(part))}`;
  if (parts[0] === 'ldmatrix') return 'ldmatrix';
  if (/^cp\.async\.c[ag]\.shared/.test(name))
    return /\]\s*,\s*\[[^\]]*\]\s*,\s*16\b/.test(operands) ? 'copy16' : 'copy';
  if ((parts[0] !== 'ld' && parts[0] !== 'st') || /^(param|shared|local|const)\b/.test(parts[1]))
    return null;
  const lanes = Number(parts.find((part) => /^v\d$/.test(part))?.slice(1) ?? 1);
  const bytes = lanes * bytesOf[/\d+$/.exec(parts.at(-1))[0]];
  return `${parts[0] === 'ld' ? 'load' : 'store'}${bytes >= 16 ? 16 : ''}`;
}

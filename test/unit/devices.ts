/**
 * The device that a test run is about: MIXPL_DEVICE, which is also what 'auto' means to a detector, else
 * the CPU. `MIXPL_DEVICE=cuda npx vitest run test/unit/image` tests a GPU, or an emulated one with
 * MIXPL_ADDON=build/emulated/mixpl.node.
 */
export const testDevice = process.env.MIXPL_DEVICE ?? 'cpu';

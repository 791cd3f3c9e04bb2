/**
 * The device that single tests run on: MIXPL_TEST_DEVICE, else the CPU. On an emulated GPU:
 * `MIXPL_ADDON=build/emulated/mixpl.node MIXPL_TEST_DEVICE=cuda npx vitest run test/unit/image`.
 */
export const testDevice = process.env.MIXPL_TEST_DEVICE ?? 'cpu';

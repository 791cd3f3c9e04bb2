#!/usr/bin/env bash
# Tests the CUDA kernels without a GPU: the native tests and the suites of ops, images and detection on
# the emulated device, then the list of kernels that were launched. Arguments: other suites instead.
set -euo pipefail
cd "$(dirname "$0")/.."
suites=("$@")
[ ${#suites[@]} -gt 0 ] || suites=(test/unit/ops test/unit/image test/unit/detect test/unit/devices.test.ts)
bash scripts/build-native.sh --emulate-cuda --CDMIXPL_NATIVE_TESTS=ON
export MIXPL_EMULATION_COVERAGE=$PWD/build/emulated/coverage.tsv
rm -f "$MIXPL_EMULATION_COVERAGE"
reports=${MIXPL_REPORTS:-build/emulated}
failed=0
GTEST_OUTPUT="json:$reports/native-emulated.json" build/emulated/mixpl_tests --gtest_brief=1 || failed=1
export MIXPL_ADDON=build/emulated/mixpl.node MIXPL_TEST_DEVICE=cuda
node node_modules/vitest/vitest.mjs run \
  --reporter=dot --reporter=json --outputFile.json="$reports/vitest-emulated.json" "${suites[@]}" || failed=1
node scripts/cuda-coverage.mjs "$MIXPL_EMULATION_COVERAGE" || failed=1
exit "$failed"

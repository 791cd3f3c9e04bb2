#!/usr/bin/env bash
# Tests the CUDA kernels without a GPU: the native tests and the suites that compute on a device, on the
# emulated one, then the list of kernels that were launched. `--sanitize LIST`, which comes first, builds
# kernels and emulation with those sanitizers. Further arguments: other suites instead; then the list is
# not judged.
set -euo pipefail
cd "$(dirname "$0")/.."
sanitize=
if [ "${1:-}" = --sanitize ]; then
  sanitize=$2
  shift 2
fi
suites=("$@")
[ ${#suites[@]} -gt 0 ] || suites=(test/unit/{ops/,image/,detect/,optim/,kernels/,cuda/,devices.test.ts}) # names are parts: detect is in detector, too
folder=build/emulated${sanitize:+-${sanitize//,/-}}
bash scripts/build-native.sh --emulate-cuda ${sanitize:+--sanitize "$sanitize"} --CDMIXPL_NATIVE_TESTS=ON
export MIXPL_EMULATION_COVERAGE=$PWD/$folder/coverage.tsv
rm -f "$MIXPL_EMULATION_COVERAGE"
reports=${MIXPL_REPORTS:-$folder}
# As in scripts/test-native.sh.
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1
failed=0
GTEST_OUTPUT="json:$reports/native-emulated.json" "$folder/mixpl_tests" --gtest_brief=1 || failed=1
# Node itself is not built with sanitizers: their runtime has to be there before it.
preload=
case "$sanitize" in *address*) preload=$(${CXX:-c++} -print-file-name=libasan.so) ;; esac
LD_PRELOAD=$preload MIXPL_ADDON=$folder/mixpl.node MIXPL_TEST_DEVICE=cuda MIXPL_DEVICE=cuda \
  node node_modules/vitest/vitest.mjs run --testTimeout=600000 \
  --reporter=dot --reporter=json --outputFile.json="$reports/vitest-emulated.json" "${suites[@]}" || failed=1
node scripts/cuda-coverage.mjs "$MIXPL_EMULATION_COVERAGE" || [ $# -gt 0 ] || failed=1
exit "$failed"

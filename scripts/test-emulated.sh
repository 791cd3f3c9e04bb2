#!/usr/bin/env bash
# Tests the CUDA kernels without a GPU, on the emulated one: the native tests, the suites of single ops, then
# the list of kernels that were launched; and whole trainings. Options, before further arguments:
#
#   --sanitize LIST   kernels and emulation built with those sanitizers, e.g. address
#   --part kernels    all but the trainings
#   --part trainings  those, and the emulation's own tests
#
# Further arguments: suites instead of those of the part; then the list is not judged.
set -euo pipefail
cd "$(dirname "$0")/.."
sanitize=
part=
while [ $# -gt 0 ]; do
  case "$1" in
    --sanitize) sanitize=$2 ;;
    --part) part=$2 ;;
    *) break ;;
  esac
  shift 2
done
# Names are parts: detect is in detector, too.
kernels=(test/unit/{ops/,image/,detect/,optim/,kernels/,devices.test.ts})
filter='*'
trainings=(test/unit/cuda/ test/unit/cli/processes.test.ts)
case "$part" in
  '') suites=("${kernels[@]}" "${trainings[@]}") ;;
  kernels) suites=("${kernels[@]}") ;;
  trainings) suites=("${trainings[@]}") filter='Emulation.*' ;;
  *) echo "test-emulated.sh: --part must be kernels or trainings, got '$part'" >&2 && exit 2 ;;
esac
judged=1
[ "$part" != trainings ] || judged=0
[ $# -eq 0 ] || suites=("$@") judged=0
folder=build/emulated${sanitize:+-${sanitize//,/-}}
bash scripts/build-native.sh --emulate-cuda ${sanitize:+--sanitize "$sanitize"} --CDMIXPL_NATIVE_TESTS=ON
export MIXPL_EMULATION_COVERAGE=$PWD/$folder/coverage.tsv
rm -f "$MIXPL_EMULATION_COVERAGE"
reports=${MIXPL_REPORTS:-$folder}
name=emulated${part:+-$part}
# As in scripts/test-native.sh.
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1
failed=0
# The native tests take one core, and with a sanitizer minutes: beside the suites.
GTEST_OUTPUT="json:$reports/native-$name.json" "$folder/mixpl_tests" --gtest_brief=1 --gtest_filter="$filter" \
  >"$folder/native-tests.log" 2>&1 &
native=$!
# Node itself is not built with sanitizers: their runtime has to be there before it.
preload=
case "$sanitize" in *address*) preload=$(${CXX:-c++} -print-file-name=libasan.so) ;; esac
LD_PRELOAD=$preload MIXPL_ADDON=$folder/mixpl.node MIXPL_TEST_DEVICE=cuda MIXPL_DEVICE=cuda \
  node node_modules/vitest/vitest.mjs run --testTimeout=600000 \
  --reporter=dot --reporter=json --outputFile.json="$reports/vitest-$name.json" "${suites[@]}" || failed=1
wait "$native" || failed=1
cat "$folder/native-tests.log"
[ "$judged" = 0 ] || node scripts/cuda-coverage.mjs "$MIXPL_EMULATION_COVERAGE" || failed=1
exit "$failed"

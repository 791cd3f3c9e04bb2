#!/usr/bin/env bash
# Builds and runs the native tests: beside the addon, in build/, those of GPUs among them where nvcc is found
# (skipped without one to run on). `--cuda` insists on nvcc; `--sanitize LIST` (say, address,undefined) builds
# them with those sanitizers, `--emulate-cuda` with the CUDA kernels on an emulated device, each in a folder
# of its own. Further arguments go to the tests, e.g. `--gtest_filter='Emulation.*'`.
set -euo pipefail
cd "$(dirname "$0")/.."
sanitize=
cuda=
arguments=()
while [ $# -gt 0 ]; do
  case "$1" in
    --sanitize) sanitize=$2; shift ;;
    --emulate-cuda) cuda=EMULATE ;;
    --cuda) export MIXPL_CUDA=ON ;;
    *) arguments+=("$1") ;;
  esac
  shift
done
export MIXPL_CHECK_MEMORY=1
# The calls to the CUDA runtime, on one of the tests' own; first, for its report is of the other tests.
run() { # folder
  if [ ${#arguments[@]} -eq 0 ]; then env -u GTEST_OUTPUT "$1/mixpl_runtime_tests" --gtest_brief=1; fi
  "$1/mixpl_tests" --gtest_brief=1 "${arguments[@]}"
}
if [ -z "$sanitize$cuda" ]; then # the addon's objects serve here, too
  bash scripts/build-native.sh --CDMIXPL_NATIVE_TESTS=ON
  run build
  exit
fi
folder=build/native-tests${cuda:+-emulated}${sanitize:+-${sanitize//,/-}}
generator=()
if command -v ninja >/dev/null 2>&1; then generator=(-G Ninja); fi
# The undefined sanitizer takes longer to compile than to run, the thread sanitizer does not.
optimise=
case "$sanitize" in *undefined*) optimise=-O0 ;; esac
export CCACHE_SLOPPINESS=pch_defines,time_macros # of precompiled headers
launcher=()
if command -v ccache >/dev/null 2>&1; then launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache); fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
{
  cmake -S . -B "$folder" "${generator[@]}" "${launcher[@]}" -DMIXPL_NATIVE_TESTS=ON \
    -DMIXPL_SANITIZE="$sanitize" -DMIXPL_CUDA="${cuda:-OFF}" -DMIXPL_OPTIMISE="$optimise" &&
    cmake --build "$folder" --target mixpl_tests mixpl_runtime_tests -j2
} >"$log" 2>&1 || {
  cat "$log" >&2
  exit 1
}
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
# oneDNN and OpenMP keep their pools to the end; a leak check of them says nothing about this code.
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1
# The OpenMP runtime synchronises in ways that ThreadSanitizer cannot see: one thread there, so that what
# it reports is about our own threads.
case "$sanitize" in
  *thread*) export OMP_THREAD_LIMIT=1 OMP_NUM_THREADS=1 TSAN_OPTIONS=halt_on_error=1:allocator_may_return_null=1 ;;
esac
run "$folder"

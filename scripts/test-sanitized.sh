#!/usr/bin/env bash
# Runs vitest on an addon whose CPU code is built with the address and undefined behaviour sanitizers.
# Arguments: files, or parts of their paths, instead of all.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=build/sanitized-address-undefined
bash scripts/build-native.sh --sanitize address,undefined
npm run --silent build:ts # commands under test are run as they are built
# As in scripts/test-native.sh.
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1
# Node itself is not built with sanitizers: their runtime has to be there before it.
LD_PRELOAD=$(${CXX:-c++} -print-file-name=libasan.so) MIXPL_ADDON=$folder/mixpl.node \
  node node_modules/vitest/vitest.mjs run --testTimeout=600000 "$@"

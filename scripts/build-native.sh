#!/usr/bin/env bash
# Builds the addon into build/Release/mixpl.node through cmake-js; `--emulate-cuda`, which comes first,
# with the CUDA kernels on an emulated device into build/emulated/mixpl.node (run it by
# MIXPL_ADDON=build/emulated/mixpl.node), and `--sanitize LIST` after it with those sanitizers for the
# kernels, into a folder of its own: build/emulated-address, say. `--sanitize LIST` alone builds the CPU's
# code with them, into build/sanitized-address, say. The environment variable MIXPL_CUDA says
# ON, OFF or AUTO (for GPUs where nvcc works). Extra arguments go to cmake-js, e.g.
# `scripts/build-native.sh --CDMIXPL_RELEASE=ON`.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=build
addon=build/Release/mixpl.node
# Said each time, as CMake remembers the last; further arguments come later and count.
said=(--CDMIXPL_NATIVE_TESTS=OFF --CDMIXPL_RELEASE=OFF --CDMIXPL_CUDA="${MIXPL_CUDA:-AUTO}")
if [ "${1:-}" = --emulate-cuda ]; then
  folder=build/emulated
  said+=(--CDMIXPL_CUDA=EMULATE)
  shift
  if [ "${1:-}" = --sanitize ]; then
    folder+=-${2//,/-}
    said+=(--CDMIXPL_SANITIZE_KERNELS="$2")
    shift 2
  fi
elif [ "${1:-}" = --sanitize ]; then
  folder=build/sanitized-${2//,/-}
  said+=(--CDMIXPL_CUDA=OFF --CDMIXPL_SANITIZE="$2")
  shift 2
fi
[ "$folder" = build ] || addon=$folder/mixpl.node
export CCACHE_SLOPPINESS=pch_defines,time_macros # of precompiled headers
launcher=()
if command -v ccache >/dev/null 2>&1; then
  launcher=(--CDCMAKE_CXX_COMPILER_LAUNCHER=ccache --CDCMAKE_CUDA_COMPILER_LAUNCHER=ccache)
fi
generator=()
if command -v ninja >/dev/null 2>&1; then generator=(-G Ninja); fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# `cmake-js compile` would not look at options once it has been configured.
cmake_js() {
  npx --no-install cmake-js "$1" --out "$folder" "${generator[@]}" "${launcher[@]}" "${said[@]}" "${@:2}"
}
if ! { cmake_js configure "$@" && cmake_js build "$@"; } >"$log" 2>&1; then
  cat "$log" >&2
  exit 1
fi
if [ "${MIXPL_VERBOSE:-0}" = 1 ]; then cat "$log"; else sed -n 's/.*-- CUDA: /native: CUDA: /p' "$log"; fi
# cmake-js builds below Release/ with some generators, beside it with others.
built=$(ls -t "$folder"/Release/mixpl.node "$folder"/mixpl.node 2>/dev/null | head -1) || true
if [ -n "$built" ]; then
  mkdir -p "$(dirname "$addon")"
  # Gloo's plug-in lies beside the addon.
  gloo=$(dirname "$built")/mixpl_gloo.so
  if [ "$built" != "$addon" ]; then
    cp -f "$built" "$addon"
    [ ! -e "$gloo" ] || cp -f "$gloo" "$(dirname "$addon")/"
  fi
  echo "native: $addon ($(($(stat -c %s "$addon") / 1024)) KiB)"
  exit 0
fi
echo "build-native.sh: the build ended without mixpl.node" >&2
exit 1

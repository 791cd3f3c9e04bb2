#!/usr/bin/env bash
# Compiles CUDA kernels with nvcc, or looks at those that are built, and prints what each takes: registers,
# shared memory, local memory; where it compiles, accesses to global memory by width and instructions of
# tensor cores, too, as the PTX has them.
# Fails when one does not compile without warnings, a kernel of scripts/hot-kernels.txt uses local memory or
# lacks an instruction named there, or the addon in build/Release is larger than its budget. No GPU needed.
#
#   check-cuda.sh [OPTION...] [FILE...]     FILE: *_cuda.cu; default: all below native/
#
#   --built   compiles nothing: what ptxas said when the addon was built, as CI does
#   --hot     only the files that hot-kernels.txt names
#   --all     every architecture of a release, not sm_90a alone
#   --others  those but sm_90a, which --built looks at; of wgmma's files that one as well
#
# What did not change since it last passed is not compiled again (build/check-cuda).
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v nvcc >/dev/null 2>&1; then
  echo 'check-cuda: skipped, there is no nvcc'
  exit 0
fi
exec node scripts/check-cuda.mjs "$@"

#!/usr/bin/env bash
# clang-format over native/: rewrites files, or only checks them with --check.
set -euo pipefail
cd "$(dirname "$0")/.."
mapfile -t files < <(git ls-files -co --exclude-standard 'native/*.cpp' 'native/*.h' 'native/*.cu' 'native/*.cuh')
[ ${#files[@]} -gt 0 ] || exit 0
if [ "${1:-}" = --check ]; then
  clang-format --dry-run --Werror "${files[@]}"
else
  clang-format -i "${files[@]}"
fi

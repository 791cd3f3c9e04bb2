#!/usr/bin/env bash
# Builds the addon into build/Release/mixpl.node through cmake-js. Extra arguments go to cmake-js,
# e.g. `scripts/build-native.sh --CDMIXPL_SANITIZE=address`.
set -euo pipefail
cd "$(dirname "$0")/.."
launcher=()
if command -v ccache >/dev/null 2>&1; then
  launcher=(--CDCMAKE_CXX_COMPILER_LAUNCHER=ccache)
fi
generator=()
if command -v ninja >/dev/null 2>&1; then generator=(-G Ninja); fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! npx --no-install cmake-js compile --out build "${generator[@]}" "${launcher[@]}" "$@" >"$log" 2>&1; then
  cat "$log" >&2
  exit 1
fi
if [ "${MIXPL_VERBOSE:-0}" = 1 ]; then cat "$log"; fi
test -f build/Release/mixpl.node || mkdir -p build/Release
for built in build/mixpl.node build/Release/mixpl.node; do
  if [ -f "$built" ]; then
    [ "$built" = build/Release/mixpl.node ] || cp -f "$built" build/Release/mixpl.node
    echo "native: build/Release/mixpl.node ($(($(stat -c %s build/Release/mixpl.node) / 1024)) KiB)"
    exit 0
  fi
done
echo "build-native.sh: the build ended without mixpl.node" >&2
exit 1

#!/usr/bin/env bash
# Makes build/package/mixpl-VERSION.tgz, which `npm install` takes on a machine without compiler, Python or CUDA: the
# addon of this platform, stripped, and beside it the libraries that a bare system lacks (oneDNN, OpenMP), with their
# licences. Builds a release, for every GPU where nvcc is found; `--built` packs what build/ and dist/ hold.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "${1:-}" != --built ]; then
  bash scripts/build-native.sh --CDMIXPL_RELEASE=ON
  npm run --silent build:ts
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/build/Release" build/package
cp package.json "$work/"
cp build/Release/mixpl.node "$work/build/Release/"
# What sums over processes by Gloo, which the addon opens by its name.
gloo=build/Release/mixpl_gloo.so
[ -e "$gloo" ] || { echo 'package.sh: the build has no plug-in for Gloo: install libgloo-dev (scripts/setup.sh does)' >&2 && exit 1; }
cp "$gloo" "$work/build/Release/"

# What every Linux with Node has stays outside; all else comes along.
everywhere='^(linux-vdso|libc|libm|libdl|librt|libpthread|libstdc\+\+|libgcc_s)\.so'
out=prebuilds/$(node -p 'process.platform + "-" + process.arch')
rm -rf "$out" && mkdir -p "$out/licences"
while read -r name _ path _; do
  [[ $name =~ $everywhere ]] && continue
  [ -e "$path" ] || { echo "package.sh: the addon needs $name, which is not here" >&2 && exit 1; }
  cp -L "$path" "$work/build/Release/$name"
  # /lib is /usr/lib, and dpkg knows one of the two names.
  owner=$(dpkg-query -S "*/$name" 2>/dev/null | head -1 | cut -d: -f1) || true
  licence=/usr/share/doc/$owner/copyright
  [ -n "$owner" ] && [ -e "$licence" ] || { echo "package.sh: $path: no licence was found for it" >&2 && exit 1; }
  cp -L "$licence" "$out/licences/${name%%.*}.txt"
done < <(ldd build/Release/mixpl.node "$gloo" | grep '=>' | sort -u -k1,1)

# Built already: prebuildify names, strips and collects.
npx --no-install prebuildify --cwd "$work" --out "$PWD" --napi --strip --tag-libc --quiet \
  --target "$(node -p process.versions.node)" --node-gyp true
# It knows no library of two numbers (libhiredis.so.0.14).
cp -n "$work"/build/Release/lib*.so.* "$out/"
npm pack --silent --pack-destination build/package >/dev/null
package=build/package/mixpl-$(node -p "require('./package.json').version").tgz
echo "package: $package ($(($(stat -c %s "$package") >> 20)) MiB), $out: $(cd "$out" && echo *)"

#!/usr/bin/env bash
# Installs what a bare Debian 12 with Node 20 lacks for building mixpl: Debian packages and npm packages.
# Says what it does, does nothing when nothing is missing, and asks before it uses sudo.
#   scripts/setup.sh          asks before sudo
#   scripts/setup.sh --yes    does not ask
set -euo pipefail
cd "$(dirname "$0")/.."
assume_yes=0
[ "${1:-}" = --yes ] && assume_yes=1

say() { echo "setup: $*"; }
die() {
  echo "setup: $*" >&2
  exit 1
}

# --- Node ---------------------------------------------------------------------------------------
command -v node >/dev/null 2>&1 || die 'Node is missing; install Node 20.19 or later from https://nodejs.org'
node_version=$(node --version)
IFS=. read -r major minor _ <<<"${node_version#v}"
if [ "$major" -lt 20 ] || { [ "$major" -eq 20 ] && [ "$minor" -lt 19 ]; }; then
  die "Node must be 20.19 or later, got $node_version; install it from https://nodejs.org"
fi

# --- Debian packages ----------------------------------------------------------------------------
missing=()
need_command() { command -v "$1" >/dev/null 2>&1 || missing+=("$2"); }
need_header() {
  local directory
  for directory in /usr/include /usr/local/include; do
    [ -e "$directory/$1" ] && return
  done
  missing+=("$2")
}
need_command g++ g++
need_command cmake cmake
need_command ninja ninja-build
need_command clang-format clang-format
need_header dnnl.hpp libdnnl-dev
need_header rapidjson/document.h rapidjson-dev
need_header gtest/gtest.h libgtest-dev
need_header gloo/allreduce.h libgloo-dev

if [ ${#missing[@]} -gt 0 ]; then
  command -v apt-get >/dev/null 2>&1 ||
    die "these are missing and apt-get is not here to install them: ${missing[*]} (Debian's names)"
  as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null 2>&1 || die "as root, run: apt-get install ${missing[*]}"
    as_root=(sudo)
    if [ $assume_yes -eq 0 ]; then
      [ -t 0 ] || die "run: sudo apt-get install ${missing[*]} (or scripts/setup.sh --yes)"
      read -r -p "setup: install ${missing[*]} with sudo apt-get? [y/N] " answer
      case "$answer" in
        [yY]*) ;;
        *) die "not installed: ${missing[*]}" ;;
      esac
    fi
  fi
  say "installing ${missing[*]}"
  install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q
    --no-install-recommends "${missing[@]}")
  # The lists of a fresh container are empty; elsewhere the first try is enough.
  "${install[@]}" >/dev/null 2>&1 || {
    "${as_root[@]}" apt-get update -q >/dev/null
    "${install[@]}" >/dev/null
  }
fi

# --- npm packages -------------------------------------------------------------------------------
stamp=node_modules/.mixpl-setup
wanted="$(sha256sum package-lock.json | cut -d' ' -f1) node $major"
if [ -L node_modules ]; then
  say 'node_modules is a link and stays as it is'
elif [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
  say 'npm ci'
  # Its script would fetch CUDA libraries; npm before 11 runs it whatever package.json allows.
  export ONNXRUNTIME_NODE_INSTALL=skip
  npm ci --no-audit --no-fund --loglevel=error
  echo "$wanted" >"$stamp"
fi

#!/usr/bin/env bash
# run.sh: installs the other clients, once, and measures.
set -euo pipefail

cd "$(dirname "$0")/.."
[ -d bench/node_modules ] || npm --prefix bench ci --no-audit --no-fund
built=testing/.bench.mjs
trap 'rm -f "$built"' EXIT
npx esbuild bench/measure.ts --bundle --platform=node --format=esm --packages=external --outfile="$built" --log-level=error
node "$built"

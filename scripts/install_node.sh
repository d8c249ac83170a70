#!/usr/bin/env bash
# install_node.sh FOLDER: the locked npm packages of FOLDER.
set -euo pipefail

folder=$1
oldest=20

fail() {
    echo "wetink: $1" >&2
    exit 1
}

command -v node >/dev/null || fail "Node.js is not installed; version $oldest or newer is needed"
command -v npm >/dev/null || fail "npm is not installed"
node -e "process.exit(parseInt(process.versions.node) < $oldest ? 1 : 0)" ||
    fail "Node.js is $(node --version); version $oldest or newer is needed"

cd "$folder"
npm ci --no-audit --no-fund

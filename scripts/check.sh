#!/usr/bin/env bash
# check.sh BIN JS_FOLDER: every static check; all run, the exit status is 0 only when all passed.
set -uo pipefail

bin=$1
js=$2
failed=()

check() {
    local name=$1
    shift
    echo "==> $name"
    "$@" || failed+=("$name")
}

check 'ruff format' "$bin/ruff" format --check .
check 'ruff check' "$bin/ruff" check .
check 'pyright' "$bin/pyright"
check 'import contracts' "$bin/lint-imports"
check 'oxlint' npm --prefix "$js" run --silent lint
check 'tsc' npm --prefix "$js" run --silent typecheck
check 'served bundle' npm --prefix "$js" run --silent build -- --check
check 'served page' node "$js/playground/build.mjs" --check

if [ ${#failed[@]} -gt 0 ]; then
    printf 'failed: %s\n' "${failed[@]}"
    exit 1
fi
echo 'all checks passed'

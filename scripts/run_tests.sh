#!/usr/bin/env bash
# run_tests.sh PYTHON JS_FOLDER: all tests. Both suites run, whatever the first says; the last lines
# are the closing lines of both, and the exit status is 0 only when both passed.
set -uo pipefail

python=$1
js=$2
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

echo '==> Python tests'
"$python" -m pytest 2>&1 | tee "$logs/pytest"
python_status=$?
echo '==> JavaScript tests'
(cd "$js" && npm test) 2>&1 | tee "$logs/vitest"
js_status=$?

echo '==> Results'
tail -n 1 "$logs/pytest"
sed 's/\x1b\[[0-9;]*m//g' "$logs/vitest" | grep -E '^ +(Test Files|Tests) ' ||
    echo 'vitest gave no result'
[ "$python_status" -eq 0 ] || echo "pytest failed (exit status $python_status)"
[ "$js_status" -eq 0 ] || echo "vitest failed (exit status $js_status)"
[ "$python_status" -eq 0 ] && [ "$js_status" -eq 0 ]

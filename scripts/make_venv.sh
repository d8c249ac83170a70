#!/usr/bin/env bash
# make_venv.sh PYTHON FOLDER: a virtual environment, or one clear line about what is missing.
set -euo pipefail

python=$1
folder=$2

fail() {
    echo "wetink: $1" >&2
    exit 1
}

command -v "$python" >/dev/null ||
    fail "$python is not installed (Debian: apt-get install python3 python3-venv)"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$python is Python $version; 3.11 or newer is needed (another one: make PYTHON=python3.12 …)"
"$python" -c 'import venv, ensurepip' 2>/dev/null ||
    fail "$python has no venv module (Debian: apt-get install python3-venv)"

if [ -x "$folder/bin/python" ] && "$folder/bin/python" -c 'import pip' 2>/dev/null; then
    exit 0
fi
echo "==> Creating the virtual environment $folder (Python $version)"
"$python" -m venv --clear "$folder"

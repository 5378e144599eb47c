#!/usr/bin/env bash
# Set up, then check format, lint, types and behaviour.
#
#   scripts/test.sh             everything
#   scripts/test.sh --quick     without the tests that are marked slow, for daily work
#   scripts/test.sh -k merge    other arguments go to pytest
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ ${1:-} == --quick ]]; then
    shift
    set -- -m "not slow" "$@"
fi
# Python compiles what the tests import, and keeps it: pip would compile all that it installs, on one core.
unset PYTHONDONTWRITEBYTECODE
PIP_COMPILE=0 scripts/setup.sh dev
. .venv/bin/activate
ruff format --check .
ruff check .
mypy --num-workers 2
# As many tests at a time as there are cores, each on one of them; at most 4, for some take 3 GB of memory.
export OMP_NUM_THREADS=1
exec pytest --numprocesses auto --maxprocesses 4 --dist worksteal "$@"

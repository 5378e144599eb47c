#!/usr/bin/env bash
# Set up, then check format, lint, types and behaviour. Arguments go to pytest: scripts/test.sh -k merge
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh dev
. .venv/bin/activate
ruff format --check .
ruff check .
mypy
exec pytest "$@"

#!/usr/bin/env bash
# Set up .venv in the repository root with the versions of constraints.txt. Run again, it only checks.
#
#   scripts/setup.sh              what the road from photos to a merged model needs
#   scripts/setup.sh dev quant    with extras of pyproject.toml, such as gguf, quant, deepspeed, wandb, endpoint
#   PYTHON=python3.12 scripts/setup.sh    with this Python
set -euo pipefail
cd "$(dirname "$0")/.."

python_is_suitable() {
    "$1" -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.12 python3.11 python3 python3.13 python3.14 python}; do
        if python_is_suitable "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo "error: no Python 3.11 to 3.14 with venv found; install Python 3.12 (and its venv package), or say PYTHON=/path/to/python" >&2
    exit 2
}

known=$(sed -n '/^\[project.optional-dependencies\]/,/^$/s/ = \[.*//p' pyproject.toml)
for extra in "$@"; do
    if ! grep -qxF -- "$extra" <<< "$known"; then
        echo "error: there is no extra $extra; choose from ${known//$'\n'/ }" >&2
        exit 2
    fi
done
extras=$(IFS=,; echo "$*")
stamp=.venv/installed
pins=$(cat pyproject.toml constraints.txt | cksum)
wanted="$pins [$extras]"
# The console script, not Python: it names its Python by a whole path, which is wrong once the folder has moved.
if [ -f "$stamp" ] && grep -qxF "$wanted" "$stamp" && .venv/bin/llava-inspect --version >/dev/null 2>&1; then
    exit 0
fi
if ! .venv/bin/python -c '' 2>/dev/null; then
    python=$(find_python)
    echo "Creating .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
fi
echo "Installing the pinned packages into .venv (a few minutes the first time)"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
    --editable ".${extras:+[$extras]}"
if .venv/bin/python -m pip list --format=freeze 2>/dev/null | grep -qiE "^llava(-torch)?=="; then
    echo "error: the original LLaVA is installed in .venv; both are called llava and cannot share an environment." >&2
    echo "       Remove it: .venv/bin/python -m pip uninstall llava llava-torch" >&2
    exit 2
fi
# Each line is a set of extras that this environment satisfies, none being always one of them; a changed pin
# makes all earlier lines void.
{ grep -F "$pins [" "$stamp" 2>/dev/null || true; printf '%s\n' "$pins []" "$wanted"; } | sort -u > "$stamp.new"
mv "$stamp.new" "$stamp"
echo "Done. In each new terminal: . .venv/bin/activate   (without it, write .venv/bin/llava-inspect)"

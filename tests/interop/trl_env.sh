#!/usr/bin/env bash
# TRL in an environment of its own, in .interop/trl (some 1 GB).
#
#   bash tests/interop/trl_env.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=.interop/trl
[ -x "$folder/bin/python" ] || "${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet torch==2.13.0 trl==1.16.0 peft pillow
echo "TRL: $folder/bin/python"

#!/usr/bin/env bash
# A prebuilt llama.cpp (the package cyllama) in an environment of its own, in .interop/cyllama-VERSION.
#
#   bash tests/interop/cyllama_env.sh 0.7.0                       # llama.cpp b11669; Python 3.12 or later
#   PYTHON=python3.11 bash tests/interop/cyllama_env.sh 0.2.18    # llama.cpp b9190
set -euo pipefail
cd "$(dirname "$0")/../.."
version=${1:?which cyllama? e.g. 0.7.0}
folder=.interop/cyllama-$version
[ -x "$folder/bin/python" ] || "${PYTHON:-python3.12}" -m venv "$folder"
"$folder/bin/pip" install --quiet "cyllama==$version" numpy pillow
echo "llama.cpp: $folder/bin/python"

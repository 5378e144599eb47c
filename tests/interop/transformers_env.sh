#!/usr/bin/env bash
# Another release of transformers in an environment of its own, in .interop/transformers-VERSION (some 800 MB).
#
#   bash tests/interop/transformers_env.sh 4.57.6     # or 4.51.3
set -euo pipefail
cd "$(dirname "$0")/../.."
version=${1:?which transformers? e.g. 4.57.6}
folder=.interop/transformers-$version
[ -x "$folder/bin/python" ] || "${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/pip" install --quiet torch==2.13.0 "transformers==$version" accelerate pillow
echo "transformers $version: $folder/bin/python"

#!/usr/bin/env bash
# The original LLaVA client, unpatched, in an environment of its own (Python 3.11, about 1.5 GB on disk).
#
#   bash tests/interop/original_env.sh [FOLDER]      # default: .interop/original
#
# Its package is called `llava`, as ours is: the two cannot share an environment. --no-deps, since the versions
# it asks for (torch 2.1, bitsandbytes, ...) are not needed to load a model and answer on a CPU.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${1:-.interop/original}
python=${PYTHON311:-python3.11}
if ! "$python" --version 2>/dev/null | grep -q "Python 3.11"; then
    echo "error: $python is not Python 3.11; install it or name it with PYTHON311=/path/to/python3.11" >&2
    exit 2
fi
[ -x "$folder/bin/python" ] || "$python" -m venv "$folder"
"$folder/bin/pip" install --quiet torch==2.13.0 transformers==4.37.2 tokenizers==0.15.2 accelerate==0.27.2 \
    "numpy<2" sentencepiece "huggingface_hub<0.27" "protobuf<6" einops requests safetensors pillow
"$folder/bin/pip" install --quiet --no-deps llava-torch==1.2.2.post1
env -u PYTHONPATH "$folder/bin/python" -c "import llava.model.builder, llava.serve.cli"
echo "the original client: $folder/bin/python"

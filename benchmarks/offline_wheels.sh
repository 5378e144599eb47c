#!/usr/bin/env bash
# Fetch the wheels that benchmarks/on_gpu.sh needs on a machine without a network, into DIR (.whl in the repository).
#
#   benchmarks/offline_wheels.sh              for Python 3.12 on x86-64 Linux
#   PYTHON_VERSION=3.11 benchmarks/offline_wheels.sh /tmp/wheels
#
# That machine is taken to have PyTorch for CUDA 13 with triton, transformers 5.17, accelerate, tokenizers, safetensors,
# sentencepiece, numpy, pillow, pandas, pyarrow, xxhash, psutil, pyyaml and what these need. Versions are those of
# constraints.txt where it has them. Of bitsandbytes the kernels for CUDA 13.0 alone are kept: all are 41 MiB.
# LLaMA-Factory caps its libraries below ours; its own go to DIR/llamafactory. Delete that folder to do without it.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dir=${1:-$root/.whl}
limit_mib=48  # small enough to be copied along with the repository
python=${PYTHON:-python3}
if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
    exit 0
fi

ours="
pydantic              settings
pydantic_core         of pydantic; compiled, for this Python alone
annotated-types       of pydantic
typing-inspection     of pydantic
typing_extensions     of pydantic, newer than PyTorch needs
omegaconf             settings: YAML and key=value
rich                  tables
peft                  adapters, at the version that our tests take
transformers          what our code is tested with
bitsandbytes          8 and 4 bits
datasets              of TRL: its records
dill                  of datasets
multiprocess          of datasets
trl==1.16.0           a contender in training
"
llamafactory="
llamafactory==0.9.5       a contender in training
transformers==5.6.0       the newest that it takes, as those below
tokenizers==0.22.2        of that transformers
peft==0.18.1              adapters
accelerate==1.11.0        of its trainer
trl==0.24.0               of its trainers
datasets==4.0.0           its records
dill==0.3.8               of datasets
multiprocess==0.70.16     of datasets
fsspec==2025.3.0          of datasets
torchdata==0.11.0         required
tyro==0.8.14              required
docstring_parser==0.18.0  of tyro
shtab==1.13.0             of tyro
fire==0.7.1               required
termcolor==3.3.0          of fire
"

platforms=()
for platform in manylinux_2_28 manylinux_2_27 manylinux_2_24 manylinux_2_17 manylinux2014 manylinux1; do
    platforms+=(--platform "${platform}_x86_64")
done

fetch() {  # DIR: the wheels that standard input names, a line each, with what they are for
    mkdir -p "$1"
    local name pinned
    while read -r name _; do
        [[ -z $name ]] && continue
        pinned=$name
        if [[ $name != *==* ]] && ! pinned=$(grep -iE "^${name//[-_]/[-_]}==" "$root/constraints.txt"); then
            echo "error: constraints.txt has no version of $name" >&2
            exit 2
        fi
        "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --dest "$1" \
            --python-version "${PYTHON_VERSION:-3.12}" --implementation cp "${platforms[@]}" "$pinned"
    done
}
fetch "$dir" <<< "$ours"
fetch "$dir/llamafactory" <<< "$llamafactory"

"$python" - "$dir" "$limit_mib" <<'PYTHON'
"""Leave out of bitsandbytes what a GPU with CUDA 13.0 does not load; say how large all wheels are."""
import re
import sys
import zipfile
from pathlib import Path

folder, limit = Path(sys.argv[1]), int(sys.argv[2])
for wheel in folder.glob("bitsandbytes-*.whl"):
    smaller = wheel.with_suffix(".new")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(smaller, "w", zipfile.ZIP_DEFLATED) as new:
        left_out = [
            name for name in old.namelist() if re.search(r"/libbitsandbytes_(?!cpu|cuda130)\w+\.so$", name)
        ]
        for name in old.namelist():
            content = old.read(name)
            if name.endswith(".dist-info/RECORD"):
                lines = content.decode().splitlines(keepends=True)
                content = "".join(line for line in lines if line.split(",")[0] not in left_out).encode()
            if name not in left_out:
                new.writestr(name, content)
    smaller.replace(wheel)
wheels = [*sorted(folder.glob("*.whl")), *sorted(folder.glob("llamafactory/*.whl"))]
sizes = {str(wheel.relative_to(folder)): wheel.stat().st_size / 2**20 for wheel in wheels}
for name, size in sizes.items():
    print(f"{size:6.2f} MiB  {name}")
print(f"{sum(sizes.values()):6.2f} MiB in {len(sizes)} wheels, of at most {limit}")
sys.exit(sum(sizes.values()) > limit)
PYTHON

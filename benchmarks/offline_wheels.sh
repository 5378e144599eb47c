#!/usr/bin/env bash
# Fetch the wheels that benchmarks/on_gpu.sh needs on a machine without a network, into DIR (.whl in the repository).
#
#   benchmarks/offline_wheels.sh              for Python 3.12 on x86-64 Linux
#   PYTHON_VERSION=3.11 benchmarks/offline_wheels.sh /tmp/wheels
#
# That machine is taken to have PyTorch for CUDA 13 with triton, transformers 5.17, accelerate, tokenizers, safetensors,
# sentencepiece, numpy, pillow, pandas, pyarrow, xxhash, psutil, pyyaml and what these need. Versions are those of
# constraints.txt where it has them. Of bitsandbytes the kernels for CUDA 13.0 alone are kept: all are 41 MiB.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dir=${1:-$root/.whl}
limit_mib=48  # with the repository's 14 MiB it goes where 64 MiB do
python=${PYTHON:-python3}
if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
    exit 0
fi

wanted="
pydantic              settings
pydantic_core         of pydantic; compiled, for this Python alone
annotated-types       of pydantic
typing-inspection     of pydantic
typing_extensions     of pydantic, newer than PyTorch needs
omegaconf             settings: YAML and key=value
rich                  tables
peft                  adapters, at the version that our tests take
transformers          5.23: what our code is tested with
datasets              of TRL: its records
dill                  of datasets
multiprocess          of datasets
trl==1.16.0           the contender in training
bitsandbytes          8 and 4 bits; the largest, so the last
"

mkdir -p "$dir"
platforms=()
for platform in manylinux_2_28 manylinux_2_27 manylinux_2_24 manylinux_2_17 manylinux2014 manylinux1; do
    platforms+=(--platform "${platform}_x86_64")
done
while read -r name _; do
    [[ -z $name ]] && continue
    pinned=$(grep -iE "^${name//[-_]/[-_]}==" "$root/constraints.txt" || true)
    [[ $name == *==* ]] && pinned=$name
    if [[ -z $pinned ]]; then
        echo "error: constraints.txt has no version of $name" >&2
        exit 2
    fi
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --dest "$dir" \
        --python-version "${PYTHON_VERSION:-3.12}" --implementation cp "${platforms[@]}" "$pinned"
done <<< "$wanted"

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
sizes = {wheel.name: wheel.stat().st_size / 2**20 for wheel in sorted(folder.glob("*.whl"))}
for name, size in sizes.items():
    print(f"{size:6.2f} MiB  {name}")
print(f"{sum(sizes.values()):6.2f} MiB in {len(sizes)} wheels, of at most {limit}")
sys.exit(sum(sizes.values()) > limit)
PYTHON

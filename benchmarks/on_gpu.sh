#!/usr/bin/env bash
# All that is claimed of a GPU, measured in one go: on one H100 or H200, in at most 8 minutes, without a network.
#
#   benchmarks/on_gpu.sh OUT                           every part; OUT/table.md is the result
#   benchmarks/on_gpu.sh OUT --parts equality train_8  only these
#   benchmarks/on_gpu.sh OUT --rehearse                every part on a CPU, at a tiny shape: does it all start?
#   benchmarks/on_gpu.sh --help                        the parts, their planned seconds and limits
#
# Wheels of what this machine lacks lie in .whl (benchmarks/offline_wheels.sh fetches them elsewhere); without
# that folder the libraries of the Python that runs are taken. PYTHON (python3) names it, SCRATCH (a temporary
# folder) where the wheels and a 7B's random weights go: 16 GB. /dev/shm is taken where it has 40 GB free.
set -euo pipefail

if [[ $# -eq 0 || $1 == -h ]]; then
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
    exit 0
fi

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
if [[ " $* " == *" --help "* ]]; then
    exec "$python" -m benchmarks.on_gpu --help
fi
if [[ -z ${SCRATCH:-} ]]; then
    free=$(df --output=avail -k /dev/shm 2>/dev/null | tail -n 1 || echo 0)
    base=${TMPDIR:-/tmp}
    if (( free > 40000000 )); then base=/dev/shm; fi
    SCRATCH=$(mktemp -d "$base/on-gpu-XXXXXX")
    trap 'rm -rf "$SCRATCH"' EXIT
fi
mkdir -p "$SCRATCH"

install() {  # TARGET WHEEL ...
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --upgrade \
        --disable-pip-version-check --target "$@"
}
wheels=()
for wheel in "$root"/.whl/*.whl; do
    [[ -e $wheel && ${wheel##*/} != bitsandbytes-* ]] && wheels+=("$wheel")
done
if (( ${#wheels[@]} )); then
    install "$SCRATCH/site" "${wheels[@]}"
    PYTHONPATH=$root:$SCRATCH/site:$PYTHONPATH
fi
# By itself: PEFT imports it wherever it is seen, and then no process can be forked (benchmarks/warm_start.py).
if compgen -G "$root/.whl/bitsandbytes-*.whl" > /dev/null; then
    install "$SCRATCH/quant" "$root"/.whl/bitsandbytes-*.whl
    export BENCHMARK_QUANT_SITE=$SCRATCH/quant
fi
if compgen -G "$root/.whl/llamafactory/*.whl" > /dev/null; then
    install "$SCRATCH/llamafactory" "$root"/.whl/llamafactory/*.whl
    export BENCHMARK_LLAMAFACTORY=$SCRATCH/llamafactory-python
    {
        echo '#!/usr/bin/env bash'
        echo "# This machine's Python with LLaMA-Factory's libraries before ours"
        echo "export PYTHONPATH=\$PYTHONPATH:$SCRATCH/llamafactory:$SCRATCH/site"
        echo "exec $(command -v "$python") \"\$@\""
    } > "$BENCHMARK_LLAMAFACTORY"
    chmod +x "$BENCHMARK_LLAMAFACTORY"
fi
"$python" -m benchmarks.on_gpu --scratch "$SCRATCH" "$@"

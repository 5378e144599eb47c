#!/usr/bin/env bash
# All that is claimed of a GPU, measured in one go: on one H100 or H200, in at most 8 minutes, without a network.
#
#   benchmarks/on_gpu.sh OUT                           every part; OUT/table.md is the result
#   benchmarks/on_gpu.sh OUT --parts equality train    only these
#   benchmarks/on_gpu.sh OUT --rehearse                every part on a CPU, at a tiny shape: does it all start?
#   benchmarks/on_gpu.sh --help                        the parts, their planned seconds and limits
#
# Wheels of what this machine lacks lie in .whl (benchmarks/offline_wheels.sh fetches them elsewhere); without
# that folder the libraries of the Python that runs are taken. PYTHON (python3) names it. SCRATCH is a folder for
# a 7B's random weights and other files, 16 GB: /dev/shm where it has 40 GB free, else TMPDIR or /tmp.
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
site=$(mktemp -d "${TMPDIR:-/tmp}/on-gpu-XXXXXX")  # never in /dev/shm, which may hold no programs
trap 'rm -rf "$site"' EXIT
trap 'exit 143' TERM
free=$(df --output=avail -k /dev/shm 2>/dev/null | tail -n 1 || echo 0)
if [[ -z ${SCRATCH:-} ]] && (( free > 40000000 )); then SCRATCH=/dev/shm; fi

install() {  # TARGET WHEEL ...
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --upgrade \
        --disable-pip-version-check --target "$@"
}
wheels=()
for wheel in "$root"/.whl/*.whl; do
    [[ -e $wheel && ${wheel##*/} != bitsandbytes-* ]] && wheels+=("$wheel")
done
if (( ${#wheels[@]} )); then
    install "$site/ours" "${wheels[@]}"
    PYTHONPATH=$root:$site/ours:$PYTHONPATH
fi
# By itself: PEFT imports it wherever it is seen, and then no process can be forked (benchmarks/warm_start.py).
if compgen -G "$root/.whl/bitsandbytes-*.whl" > /dev/null; then
    install "$site/quant" "$root"/.whl/bitsandbytes-*.whl
    export BENCHMARK_QUANT_SITE=$site/quant
fi
if compgen -G "$root/.whl/llamafactory/*.whl" > /dev/null; then
    install "$site/llamafactory" "$root"/.whl/llamafactory/*.whl
    export BENCHMARK_LLAMAFACTORY=$site/llamafactory-python
    {
        echo '#!/usr/bin/env bash'
        echo "# This machine's Python with LLaMA-Factory's libraries before ours"
        echo "export PYTHONPATH=\$PYTHONPATH:$site/llamafactory:$site/ours"
        echo "exec $(command -v "$python") \"\$@\""
    } > "$BENCHMARK_LLAMAFACTORY"
    chmod +x "$BENCHMARK_LLAMAFACTORY"
fi
"$python" -m benchmarks.on_gpu --scratch "${SCRATCH:-$site}" "$@"

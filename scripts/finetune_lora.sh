#!/usr/bin/env bash
# LoRA fine-tuning as a YAML file says; one process a GPU.
#
#   scripts/finetune_lora.sh configs/tiny_cpu.yaml
#   scripts/finetune_lora.sh my.yaml epochs=3 learning_rate=1e-4
#   scripts/finetune_lora.sh my.yaml --resume auto
#
# NUM_GPUS (all by default) sets the processes on this machine. Over several machines, start the same line
# on each with NNODES, NODE_RANK, MASTER_ADDR and, unless 29500 will do, MASTER_PORT.
set -euo pipefail

if [[ $# -eq 0 || $1 == -h || $1 == --help ]]; then
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"
    exit 0
fi

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [[ -z ${VIRTUAL_ENV:-} && -f $root/.venv/bin/activate ]]; then
    # shellcheck disable=SC1091
    source "$root/.venv/bin/activate"
fi

if [[ -z ${NUM_GPUS:-} ]]; then
    NUM_GPUS=$(python -c 'import torch; print(torch.cuda.device_count())')
fi
nodes=${NNODES:-1}

if (( NUM_GPUS > 1 || nodes > 1 )); then
    command=(torchrun --nnodes "$nodes" --nproc-per-node "$(( NUM_GPUS > 0 ? NUM_GPUS : 1 ))")
    if (( nodes > 1 )); then
        : "${MASTER_ADDR:?set MASTER_ADDR to the first machine\'s address}"
        command+=(--node-rank "${NODE_RANK:?set NODE_RANK to 0 on the first machine, 1 on the next, ...}"
                  --master-addr "$MASTER_ADDR" --master-port "${MASTER_PORT:-29500}")
    else
        command+=(--standalone)
    fi
    command+=(-m llava.train "$@")
else
    command=(python -m llava.train "$@")
fi

printf '+'; printf ' %q' "${command[@]}"; printf '\n'
exec "${command[@]}"

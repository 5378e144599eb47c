#!/usr/bin/env bash
# LoRA fine-tuning as a YAML file says; one process a GPU.
#
#   scripts/finetune_lora.sh configs/tiny_cpu.yaml
#   scripts/finetune_lora.sh my.yaml epochs=3 learning_rate=1e-4
#   scripts/finetune_lora.sh my.yaml --dry-run --gpus 1x24    plan for a GPU of 24 GB; nothing is written
#   scripts/finetune_lora.sh my.yaml --resume auto            go on from the newest checkpoint
#   scripts/finetune_lora.sh my.yaml deepspeed=configs/deepspeed/zero2.json
#   scripts/finetune_lora.sh my.yaml fsdp=true
#
# NUM_GPUS (all by default) sets the processes on this machine; where there is no GPU, NUM_GPUS=2 starts two
# processes on the CPU, to try it out. The pictures of a step are batch_size x processes x
# gradient_accumulation_steps: with twice the GPUs, halve one of the others to keep to the same training.
#
# A model too large for one GPU: deepspeed=configs/deepspeed/zero3.json, or zero3_offload.json, which keeps the
# frozen weights in the machine's memory. fsdp=true divides the weights too, once each GPU has loaded them all.
# They need a process a GPU even if there is but one.
#
# Several machines: start the same line on each, from the same folder with the same data, with
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 scripts/finetune_lora.sh my.yaml     on the first machine
#   NNODES=2 NODE_RANK=1 MASTER_ADDR=10.0.0.1 scripts/finetune_lora.sh my.yaml     on the second
# MASTER_ADDR is the first machine's address and MASTER_PORT (29500) a free port there that the others can
# reach. output_dir must be a folder that all share: each process keeps its part of a checkpoint in it.
# How training works, and what has not been tried on GPUs yet: docs/training.md.
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

export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"  # this checkout, wherever it is called from
exec python -m llava_inspect train "$@"

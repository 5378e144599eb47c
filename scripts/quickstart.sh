#!/usr/bin/env bash
# The whole road on the embedded sample: pictures -> conversations -> LoRA -> merged model -> scores.
# Everything it writes is under playground/quickstart/. After the install: some minutes on 2 CPU cores.
#
#   scripts/quickstart.sh
#   scripts/quickstart.sh epochs=4    a shorter training than the seven epochs of configs/tiny_cpu.yaml: it learns less
set -euo pipefail
[[ "$*" =~ ^(epochs=[1-9][0-9]*)?$ ]] || { echo "usage: scripts/quickstart.sh [epochs=N]" >&2; exit 2; }
cd "$(dirname "$0")/.."
scripts/setup.sh
. .venv/bin/activate

here=playground/quickstart
base=playground/tiny-llava
started=$SECONDS
rm -rf "$here"

step() { # step "what happens" command ...: say both, then run
    printf '\n\033[1m%s\033[0m\n' "$1"
    shift
    printf '  $ %s\n' "$*"
    "$@"
}

step "1/8 Render 1100 drone photos of insulator strings to learn from, with exact boxes (Pascal VOC)." \
    python -m data_prep scenes --output $here/photos --count 1100 --seed 1 --defect-share 0.55
step "2/8 Render 150 more from other seeds, which training never sees, to be tested on." \
    python -m data_prep scenes --output $here/photos_test --count 150 --seed 2
step "3/8 Turn boxes into questions and answers (conversation JSON)." \
    python -m data_prep convert --source $here/photos --test-source $here/photos_test \
    --recipe configs/recipes/insulator.yaml --output $here/data splits.val=0.05
step "4/8 Fine-tune LoRA adapters on the tiny LLaVA base." \
    scripts/finetune_lora.sh configs/tiny_cpu.yaml "$@"
step "5/8 Merge the adapters into the base: one ordinary LLaVA model." \
    python scripts/merge_lora.py --model-path $here/run --save-model-path $here/merged
for model in base merged; do
    path=$here/merged
    [ $model = merged ] || path=$base
    number=$([ $model = merged ] && echo 7 || echo 6)
    step "$number/8 Let the $model model answer the questions about the test photos." \
        python -m eval.infer --model-path $path --image-folder $here/data \
        --question-file $here/data/questions_test.jsonl --answers-file $here/answers_$model.jsonl
done
step "8/8 Score them: base against tuned, on pictures that neither has seen." \
    python -m eval.score --answers-file $here/answers_merged.jsonl --baseline-answers $here/answers_base.jsonl \
    --truth-file $here/data/truth_test.jsonl --output $here/scores

pictures=("$here"/data/images/*)
printf '\nDone in %d min %02d s. May you rely on it? Open %s\n' $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)) $here/scores/report.html
printf 'Chat with your model about a photo:\n  . .venv/bin/activate\n  python -m llava.serve.cli --model-path %s --image-file %s\n' $here/merged "${pictures[0]}"

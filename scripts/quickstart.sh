#!/usr/bin/env bash
# The whole road on the embedded sample: photos -> questions and answers -> LoRA -> merged model -> scores.
# Everything it writes is under playground/quickstart/.
#
#   scripts/quickstart.sh
#   scripts/quickstart.sh epochs=2    a shorter training than that of configs/tiny_cpu.yaml: it learns less
set -euo pipefail
[[ "$*" =~ ^(epochs=[1-9][0-9]*)?$ ]] || { echo "usage: scripts/quickstart.sh [epochs=N]" >&2; exit 2; }
cd "$(dirname "$0")/.."
scripts/setup.sh
. .venv/bin/activate

here=playground/quickstart
started=$SECONDS
rm -rf "$here"

render() { # render "what for" folder argument ...
    printf '\n\033[1m%s\033[0m\n' "$1"
    shift
    printf '  $ llava-inspect scenes --output %s\n' "$*"
    llava-inspect scenes --output "$@"
}

render "Render 1100 drone photos of insulator strings to learn from, with exact boxes (Pascal VOC)." \
    $here/photos --count 1100 --seed 1 --defect-share 0.55
render "Render 150 more from another seed, which training never sees, to be tested on." \
    $here/photos_test --count 150 --seed 2
# Without made-up dialogues, which take a fifth of the time and are not tested.
llava-inspect run $here/photos --test-photos $here/photos_test --recipe insulator --set-recipe splits.val=0.05 \
    --set-recipe dialogues=0 --output $here/run "$@"
printf '\nAll of it took %d min %02d s.\n' $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60))

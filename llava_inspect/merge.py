"""`llava-inspect merge` (and `scripts/merge_lora.py`): merge adapters into their base model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llava.common.cli import CommandParser


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser(
        "python scripts/merge_lora.py",
        "Merge adapters into their base model: one folder that any LLaVA program loads.",
        examples=[
            "--model-path runs/insulator --save-model-path models/insulator",
            "--model-path llava-v1.5-7b-task-lora --model-base liuhaotian/llava-v1.5-7b\n"
            "--save-model-path models/task --dtype float16",
            "--model-path runs/a runs/b --weights 0.7 0.3 --save-model-path models/both",
        ],
    )
    parser.add_argument(
        "--model-path",
        required=True,
        nargs="+",
        help="a run directory of llava.train or a checkpoint, an adapter that PEFT wrote, or the original "
        "LLaVA's LoRA or projector folder; several are mixed by --weights",
    )
    parser.add_argument("--save-model-path", required=True, type=Path, help="the new folder to write")
    parser.add_argument(
        "--weights", type=float, nargs="+", help="a number for each adapter: W0 + sum of weight x change"
    )
    parser.add_argument("--model-base", help="the base model, if it is not where the adapter says")
    parser.add_argument(
        "--dtype", choices=("float16", "bfloat16", "float32"), help="of the weights (default: the base's own)"
    )
    parser.add_argument(
        "--save-format", choices=("hf", "llava"), default="hf", help="Hugging Face's, or the original LLaVA's"
    )
    parser.add_argument("--max-shard-size", help="of a file of weights (default: 5GB)")
    parser.add_argument("--scores", type=Path, help="scores.json of eval.score, for the model card")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier merged model")
    args = parser.parse_args(argv)

    from llava.export.merge import merge_adapters  # here, so that --help and mistyped flags answer at once
    from llava.model.shards import DEFAULT_SHARD, parse_size

    notes = merge_adapters(
        args.model_path,
        args.save_model_path,
        weights=args.weights,
        model_base=args.model_base,
        dtype=args.dtype,
        overwrite=args.overwrite,
        save_format=args.save_format,
        max_shard_size=parse_size(args.max_shard_size) if args.max_shard_size else DEFAULT_SHARD,
        scores=score_table(args.scores) if args.scores else "",
    )
    for line in notes:
        print(line)
    print(f"merged {' '.join(args.model_path)} into {args.save_model_path}")
    return 0


def score_table(path: Path) -> str:
    """Render the headline of each task in a scores.json as a Markdown table; InputError if it is none."""
    from pydantic import ValidationError

    from eval.scoring.schema import Estimate, Scores
    from llava.common.errors import InputError
    from llava.common.files import first_problem, read_json

    try:
        scores = Scores.model_validate(read_json(path))
    except ValidationError as error:
        raise InputError(f"{path}: {first_problem(error)}") from None

    def shown(estimate: Estimate) -> str:
        interval = "" if estimate.low is None else f" [{estimate.low:.2f}, {estimate.high:.2f}]"
        return f"{estimate.value:.2f}{interval}"

    lines = [
        "| task | metric | questions | base | this model [95% interval] | blind majority |",
        "|---|---|---|---|---|---|",
    ]
    for task in scores.tasks:
        name = task.headline
        base = shown(task.base.metrics[name]) if task.base else "-"
        tuned = shown(task.tuned.metrics[name])
        lines.append(f"| {task.task} | {name} | {task.n} | {base} | {tuned} | {task.majority[name]:.2f} |")
    lines += [
        "",
        f"Of `{scores.answers.name}` against `{scores.truth.name}`, {scores.truth.lines} questions.",
    ]
    return "\n".join([*lines, *(f"- {warning}" for warning in scores.warnings)])

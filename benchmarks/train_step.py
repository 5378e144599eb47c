"""What the shortcuts of a training step on a CPU save, side by side in one process.

    python -m benchmarks.train_step --data runs/data          # what `llava-inspect convert` wrote
    python -m benchmarks.train_step --data runs/data --dtype bfloat16 --rounds 10

The embedded base with the settings of configs/tiny_cpu.yaml reads the same batches forwards and backwards: as
transformers and PEFT compute it, then with one shortcut after the other added (docs/training.md, "What is
left out"). Rounds alternate between the variants; the loss must be the same in all of them.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from llava.common.settings import load_settings
from llava.common.shipped import find_config
from llava.model.builder import DTYPES, load_model
from llava.model.folder import open_model_folder
from llava.model.lora import attach, leave_casting_to_autocast, set_dtype_of_trained
from llava.train.config import TrainSettings
from llava.train.data.packing import Batch, packed_loss
from llava.train.data.token_cache import Encoding
from llava.train.dataset import Collator, RecordSet, TrainingSet
from llava.train.finetune import make_record_processor
from llava.train.last_layer import SupervisedLastLayer
from llava.train.summed_lora import sum_adapters_into_weights


def compute_all_vision_layers(model: Any) -> None:
    """Undo what `load_model` leaves out: the layers behind the one that is read."""
    for module in model.modules():
        if type(module).__name__ == "CLIPEncoderLayer":
            vars(module).pop("forward", None)


VARIANTS: dict[str, list[str]] = {
    "as transformers and PEFT compute it": [],
    "vision layers that are read": ["vision"],
    "and the last layer where there is loss": ["vision", "last"],
    "and adapters summed into weights (float32 alone)": ["vision", "last", "sum"],
}


def make_variant(base: Any, settings: TrainSettings, shortcuts: list[str], *, autocast: bool) -> Any:
    """Put adapters on a copy of `base`, and the shortcuts."""
    llava = copy.deepcopy(base)
    if "vision" not in shortcuts:
        compute_all_vision_layers(llava)
    torch.manual_seed(0)
    model: Any = attach(llava, settings.lora, train_projector=True)
    set_dtype_of_trained(model, torch.float32)
    if autocast:
        leave_casting_to_autocast(model)
    if "last" in shortcuts:
        SupervisedLastLayer(llava)
    if "sum" in shortcuts:
        sum_adapters_into_weights(model)
    return model.train()


def make_batches(settings: TrainSettings, count: int) -> list[Batch]:
    """Make the first batches of the first epoch."""
    processor = make_record_processor(open_model_folder(settings.model_name_or_path), settings)
    encoding = Encoding(processor, settings.image_folder, settings.max_length, packing=True)
    with TemporaryDirectory() as cache:
        records = RecordSet(
            settings.data_path, encoding, Path(cache), picture_room=1e9, progress=lambda items, *_: items
        )
        examples = TrainingSet(
            records, seed=0, questions_per_picture=settings.questions_per_picture,
            augmentation=settings.augment,
        )  # fmt: skip
        collate = Collator(processor.vision, settings.max_length, 160, 0)
        size = settings.batch_size
        return [collate([examples[i] for i in range(size * n, size * (n + 1))]) for n in range(count)]


def time_round(model: Any, batches: list[Batch], context: Callable[[], Any]) -> tuple[float, float]:
    """Return the seconds of a step and the mean loss."""
    began, losses = time.perf_counter(), []
    for batch in batches:
        with context():
            total, tokens = packed_loss(model, batch)
        (total / tokens).backward()
        losses.append(total.item() / tokens)
    model.zero_grad()
    return (time.perf_counter() - began) / len(batches), sum(losses) / len(losses)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the output folder of convert")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--batches", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("settings", nargs="*", help="key=value of the training")
    args = parser.parse_args()
    places = [f"data_path={args.data}/train.json", f"image_folder={args.data}", "output_dir=unused"]
    settings = load_settings(TrainSettings, find_config(Path("tiny_cpu")), [*places, *args.settings])
    autocast = args.dtype == "bfloat16"
    base = load_model(
        settings.model_name_or_path, device="cpu", dtype=DTYPES[args.dtype],
        attn_implementation="sdpa_float32" if autocast else "sdpa",
    ).model  # fmt: skip
    variants = {
        name: make_variant(base, settings, shortcuts, autocast=autocast)
        for name, shortcuts in VARIANTS.items()
        if not (autocast and "sum" in shortcuts)
    }
    batches = make_batches(settings, args.batches)

    def context() -> Any:
        return torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext()

    times: dict[str, list[float]] = {name: [] for name in variants}
    losses = {name: time_round(model, batches[:2], context)[1] for name, model in variants.items()}
    spread = max(losses.values()) - min(losses.values())
    if spread > (2e-2 if autocast else 1e-4):
        raise SystemExit(f"the variants' losses differ: {losses}")
    for _ in range(args.rounds):
        for name, model in variants.items():
            times[name].append(time_round(model, batches, context)[0])
    table = Table("variant", "ms a step (range)", "times as fast", box=MARKDOWN)
    first = median(next(iter(times.values())))
    for name, found in times.items():
        span = f"{1000 * min(found):.0f} to {1000 * max(found):.0f}"
        table.add_row(name, f"{1000 * median(found):.0f} ({span})", f"{first / median(found):.2f}")
    print(f"{args.dtype}, {settings.batch_size} images a step, {torch.get_num_threads()} threads")
    Console(width=110).print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

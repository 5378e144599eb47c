"""Does packing change how good the tuned model is? The embedded base tuned with it, without it, and again.

    python -m benchmarks.packing_quality
    python -m benchmarks.packing_quality --photos 60 --test-photos 20 epochs=1     # a quick try

The quickstart's road (rendered photos, questions, configs/tiny_cpu.yaml, answers, scores) with packing,
without it, and with packing from another seed; key=value goes to all trainings. Loss and gradients are equal
packed and unpacked, so the scores should differ by no more than rounding brings about over a whole training.
Scores are compared in pairs, question by question; the intervals cover the choice of questions, not the luck
of a training, and what that does the other seed shows. The command fails when packed and unpacked stand apart
in more tasks than two seeds do, and in more than chance explains.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from math import comb
from pathlib import Path
from typing import Any

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

REPO = Path(__file__).resolve().parents[1]
BASE = REPO / "playground" / "tiny-llava"
FIRST = "packed"
WAYS = {FIRST: [], "another seed": ["seed=1"], "unpacked": ["packing=false"]}


def command(console: Console, *arguments: str | Path) -> None:
    """Run a module; what it prints is shown only if it fails."""
    console.print("$ python -m", *map(str, arguments), highlight=False, markup=False, soft_wrap=True)
    done = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        console.print(done.stdout, highlight=False, markup=False)
        raise SystemExit(done.returncode)


def make_data(folder: Path, photos: int, test_photos: int, console: Console) -> Path:
    """Rendered photos and the questions about them, with the quickstart's seeds and recipe."""
    for name, count, more in (
        ("photos", photos, ["--seed", "1", "--defect-share", "0.55"]),
        ("photos_test", test_photos, ["--seed", "2"]),
    ):
        output = folder / name
        command(console, "data_prep", "scenes", "--output", output, "--count", str(count), *more)
    recipe = REPO / "configs" / "recipes" / "insulator.yaml"
    command(
        console, "data_prep", "convert", "--source", folder / "photos",
        "--test-source", folder / "photos_test", "--recipe", recipe,
        "--output", folder / "data", "splits.val=0.05",
    )  # fmt: skip
    return folder / "data"


def tune_and_answer(way: str, data: Path, folder: Path, overrides: list[str], console: Console) -> float:
    """Writes `<way>.jsonl`, the tuned model's answers; the seconds that its training took."""
    run = folder / f"{way}_run"
    started = time.perf_counter()
    command(
        console, "llava.train", REPO / "configs" / "tiny_cpu.yaml", f"model_name_or_path={BASE}",
        f"data_path={data / 'train.json'}", f"val_path={data / 'val.json'}", f"image_folder={data}",
        f"output_dir={run}", *overrides, *WAYS[way],
    )  # fmt: skip
    seconds = time.perf_counter() - started
    command(
        console, "eval.infer", "--model-path", run, "--image-folder", data,
        "--question-file", data / "questions_test.jsonl", "--answers-file", folder / f"{way}.jsonl",
    )  # fmt: skip
    return seconds


def score(way: str, data: Path, folder: Path, console: Console) -> list[dict[str, Any]]:
    """The tasks of scores.json, with the first way's answers as `tuned` and those of `way` as `base`."""
    command(
        console, "eval.score", "--answers-file", folder / f"{FIRST}.jsonl",
        "--baseline-answers", folder / f"{way}.jsonl",
        "--truth-file", data / "truth_test.jsonl", "--output", folder / f"{way}_scores",
    )  # fmt: skip
    found: list[dict[str, Any]] = json.loads((folder / f"{way}_scores" / "scores.json").read_text())["tasks"]
    return found


def table(scores: dict[str, list[dict[str, Any]]]) -> Table:
    """Each task's headline score every way, and in pairs how far the first is above each other."""
    out = Table(box=MARKDOWN)
    out.add_column("task")
    for name in ("questions", f"{FIRST} [95% interval]", *scores, *(f"{FIRST} - {way}" for way in scores)):
        out.add_column(name, justify="right")
    for tasks in zip(*scores.values(), strict=True):
        first, metric = tasks[0], tasks[0]["headline"]
        out.add_row(
            f"{first['task']} ({metric.replace('_', ' ')})",
            str(first["n"]),
            estimate(first["tuned"]["metrics"].get(metric)),
            *(f"{task['base']['metrics'][metric]['value']:.3f}" for task in tasks),
            *(estimate(task["difference"].get(metric)) for task in tasks),
        )
    return out


def estimate(found: dict[str, Any] | None) -> str:
    return "none" if found is None else f"{found['value']:.3f} [{found['low']:.2f}, {found['high']:.2f}]"


def different(tasks: list[dict[str, Any]]) -> list[str]:
    """Tasks where the interval of the difference leaves zero out."""
    found = [(task["task"], task["difference"].get(task["headline"])) for task in tasks]
    return [name for name, gap in found if gap is not None and not gap["low"] <= 0 <= gap["high"]]


def by_chance(apart: int, tasks: int, level: float = 0.05) -> float:
    """How likely `apart` or more of `tasks` intervals leave zero out where there is no difference."""
    return sum(comb(tasks, k) * level**k * (1 - level) ** (tasks - k) for k in range(apart, tasks + 1))


def unexplained(apart: int, seeds_apart: int, tasks: int) -> bool:
    """Whether packed and unpacked stand apart in more of the tasks than two seeds do and than chance, once in
    a hundred times, makes it."""
    return apart > seeds_apart and by_chance(apart, tasks) < 0.01


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=1100)
    parser.add_argument("--test-photos", type=int, default=150)
    parser.add_argument("--output", type=Path, help="the scores and training times as JSON")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for all trainings")
    args = parser.parse_intermixed_args()
    console = Console(width=170)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = make_data(folder, args.photos, args.test_photos, console)
        seconds = {way: tune_and_answer(way, data, folder, args.overrides, console) for way in WAYS}
        scores = {way: score(way, data, folder, console) for way in WAYS if way != FIRST}
    console.print(table(scores))
    took = ", ".join(f"{spent:.0f} s {way}" for way, spent in seconds.items())
    console.print(f"training took {took}", highlight=False)
    if args.output:
        args.output.write_text(json.dumps({"scores": scores, "seconds": seconds}, indent=1) + "\n")
    apart = {way: different(tasks) for way, tasks in scores.items()}
    for way, tasks in apart.items():
        console.print(f"{FIRST} and {way} stand apart in {', '.join(tasks) or 'no task'}", highlight=False)
    if unexplained(len(apart["unpacked"]), len(apart["another seed"]), len(scores["unpacked"])):
        console.print("DIFFERENT: neither chance nor the seed explains so many", highlight=False)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

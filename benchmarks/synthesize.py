"""How many pictures a minute does `llava-inspect synthesize` make? The real command, with one thread.

    llava-inspect scenes --count 40 --seed 5 --output runs/scenes
    python -m benchmarks.synthesize --photos runs/scenes:insulator --output runs/bench_synthesize

Each of --photos is FOLDER:RECIPE. For each of them and each method the command makes --count pictures;
reading photos, measuring, writing, contact sheets and rejected tries count. The time is the processor's, so
that other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

from benchmarks.suspects import command
from data_prep.synthetic import read_synthetic
from llava.common.errors import InputError, run_command
from llava.common.files import write_json

METHODS = ("paste", "render")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", nargs="+", required=True, metavar="FOLDER:RECIPE")
    parser.add_argument("--count", type=int, default=40, help="pictures to make")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    rows = []
    for place in args.photos:
        folder, colon, recipe = place.rpartition(":")
        if not colon:
            raise InputError(f"--photos {place}: name its recipe too, FOLDER:RECIPE")
        for method in METHODS:
            rows.append(measure(Path(folder), recipe, method, args.count, args.output))
    write_json(args.output / "synthesize.json", rows)
    print("\n| photos | method | made | rejected | core seconds each | a minute |\n|---|---|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(map(str, row.values())) + " |")


def measure(photos: Path, recipe: str, method: str, count: int, output: Path) -> dict[str, str | int | float]:
    """Make pictures, and return how many and how fast; they are removed."""
    folder = output / "made"
    shutil.rmtree(folder, ignore_errors=True)
    began = time.process_time()
    command("synthesize", "--source", photos, "--recipe", recipe, "--method", method, "--count", count,
            "--workers", 1, "--output", folder)  # fmt: skip
    seconds = time.process_time() - began
    file = read_synthetic(folder)
    shutil.rmtree(folder)
    made = len(file.images)
    return {
        "photos": photos.name,
        "method": method,
        "made": made,
        "rejected": sum(file.info.rejected.values()),
        "seconds": round(seconds / made, 2),
        "per_minute": round(60 * made / seconds, 1),
    }


if __name__ == "__main__":
    run_command(main)

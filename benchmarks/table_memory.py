"""Measure how much memory a million rows of questions take.

    python -m benchmarks.table_memory [--suffix .parquet] [--unique] [--convert]

Writes a table about 10,000 images to a temporary folder, reads it in a process of its own and prints its
speed and by how much that process grew at most. `--unique` words every question and answer anew, the worst
case: nothing is shared between rows. `--convert` runs the whole conversion, with configs/recipes/vqa.yaml,
instead of reading alone.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

REPO = Path(__file__).resolve().parents[1]
COLUMNS = ("image", "question", "answer")


def make_rows(count: int, images: int, unique: bool) -> Iterator[tuple[str, str, str]]:
    """Yield (image, question, answer); `unique` words each anew."""
    for number in range(count):
        disc = number if unique else number // images
        answer = ("no", "yes")[number * 7919 % 3 == 0] + (f", at clamp {number}" if unique else "")
        question = f"Is the insulator disc numbered {disc} from the top broken?"
        yield f"photo_{number % images:05d}.jpg", question, answer


def write(folder: Path, suffix: str, count: int, images: int, unique: bool) -> None:
    """Write the images and the table.

    Args:
        folder: Where to.
        suffix: The table's kind, such as `.csv`.
        count: Its rows.
        images: How many images they are about, in turn.
        unique: Words every question and answer anew.
    """
    for number in range(images):
        # Readers open no image, conversions do: cells of random greys, so that no two are near-duplicates.
        cells = np.random.default_rng(number).integers(0, 256, (16, 17), np.uint8)
        Image.fromarray(cells).resize((68, 64), Image.Resampling.NEAREST).save(
            folder / f"photo_{number:05d}.jpg"
        )
    file = folder / f"rows{suffix}"
    rows = make_rows(count, images, unique)
    if suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        columns = zip(*rows, strict=True)
        pyarrow.parquet.write_table(pyarrow.table(dict(zip(COLUMNS, map(list, columns), strict=True))), file)
        return
    with file.open("w", newline="", encoding="utf-8") as text:
        if suffix == ".csv":
            csv.writer(text).writerows([COLUMNS, *rows])
        else:
            lines = (json.dumps(dict(zip(COLUMNS, row, strict=True))) for row in rows)
            text.write("[\n" + ",\n".join(lines) + "\n]" if suffix == ".json" else "\n".join(lines))


def measure(folder: Path) -> None:
    from data_prep.formats import find_reader
    from data_prep.source_folder import SourceFolder

    scanned = SourceFolder.scan(folder)
    reader, _ = find_reader(scanned)
    before, start = peak_mib(), time.process_time()
    source, problems = reader.read(scanned)
    seconds = time.process_time() - start
    count = sum(len(annotation.conversations) for image in source.images for annotation in image.annotations)
    assert not problems
    print(
        f"{count:,} rows about {len(source.images):,} pictures: {count / seconds:,.0f} rows/s of a core, "
        f"{peak_mib() - before:,.0f} MiB at most above the {before:,.0f} MiB before reading"
    )


def measure_convert(folder: Path, rows: int) -> None:
    from data_prep.__main__ import main as data_prep

    before, start = peak_mib(), time.perf_counter()
    with tempfile.TemporaryDirectory() as output:
        recipe = str(REPO / "configs" / "recipes" / "vqa.yaml")
        options = ["--source", str(folder), "--recipe", recipe, "--output", f"{output}/out"]
        assert data_prep(["convert", *options]) == 0
    seconds, grown = time.perf_counter() - start, peak_mib() - before
    print(
        f"{rows:,} rows converted in {seconds:,.0f} s, {grown:,.0f} MiB at most above the {before:,.0f} MiB "
        f"before: {grown * 2**20 / rows:,.0f} bytes a row"
    )


def peak_mib() -> float:
    """Return this process's peak memory in MiB; ru_maxrss is in KiB on Linux, in bytes on macOS."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1 << 20 if sys.platform == "darwin" else 1 << 10
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suffix", choices=[".csv", ".json", ".jsonl", ".parquet"], default=".csv")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--unique", action="store_true")
    parser.add_argument("--convert", action="store_true", help="all of `data_prep convert`")
    parser.add_argument("--step", nargs=2, metavar=("write|measure", "DIR"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step is None:
        # A process starts with its parent's peak as its own: neither step is run in this one.
        with tempfile.TemporaryDirectory() as folder:
            for step in ("write", "measure"):
                command = [
                    sys.executable,
                    "-m",
                    "benchmarks.table_memory",
                    *sys.argv[1:],
                    "--step",
                    step,
                    folder,
                ]
                subprocess.run(command, check=True, cwd=REPO)
    elif args.step[0] == "write":
        write(Path(args.step[1]), args.suffix, args.rows, args.pictures, args.unique)
    elif args.convert:
        measure_convert(Path(args.step[1]), args.rows)
    else:
        measure(Path(args.step[1]))


if __name__ == "__main__":
    main()

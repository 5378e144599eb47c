"""Measure how fast `data_prep convert` writes images, against what Pillow alone can do with the same files.

The limit is Pillow decoding, scaling and encoding the same files on the same cores, in threads and in
processes, whichever is faster; it reads no annotation, compares no images and writes no file. Both are run in
turn, several times, and the best of each counts, so that a busy machine slows down both.

    python -m benchmarks.data_prep --source photos --recipe configs/recipes/insulator.yaml
    python -m benchmarks.data_prep --source photos --recipe configs/recipes/insulator.yaml \\
        --pictures 100 --rounds 5 --workers 2 unit=tile

`again` is a second conversion with the same input, which decodes nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.table import Table

from data_prep.annotations import AnnotatedSource
from data_prep.commands.convert import prepare_all, read_sources
from data_prep.formats import AUTO, READERS
from data_prep.images.store import ImageStore
from data_prep.images.units import prepare_image
from data_prep.recipe.schema import Recipe
from data_prep.source_folder import SourceFolder
from llava.common.boxes import Box
from llava.common.settings import load_settings

Job = tuple[
    Path, list[tuple[Box, tuple[int, int]]], int
]  # file, (part, size as written) of each unit, quality


def pillow(job: Job) -> int:
    """Decode, cut, scale and encode, the least that a conversion must do. Returns the number of bytes."""
    file, parts, quality = job
    total = 0
    with Image.open(file) as opened:
        opened.load()
        for part, size in parts:
            cut = opened if part == (0, 0, *opened.size) else opened.crop(tuple(map(int, part)))
            cut = cut if cut.mode == "RGB" else cut.convert("RGB")
            cut = cut if cut.size == size else cut.resize(size, Image.Resampling.LANCZOS)
            buffer = BytesIO()
            cut.save(buffer, "JPEG", quality=quality, subsampling=0)
            total += buffer.tell()
    return total


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, required=True, metavar="DIR")
    parser.add_argument("--recipe", type=Path, required=True, metavar="FILE.yaml")
    parser.add_argument("--format", choices=[AUTO, *READERS], default=AUTO)
    parser.add_argument("--pictures", type=int, default=200, metavar="N", help="at most (default: 200)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="the best counts (default: 3)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    args = parser.parse_intermixed_args(argv)

    recipe = load_settings(Recipe, args.recipe, args.overrides)
    with contextlib.redirect_stdout(io.StringIO()):
        (source,) = read_sources([SourceFolder.scan(args.source)], recipe, args.format)
    source = replace(source, images=source.images[:: max(1, len(source.images) // args.pictures)])
    source = replace(source, images=source.images[: args.pictures])
    with tempfile.TemporaryDirectory() as folder:
        jobs = _jobs(source, recipe, Path(folder))
        best: dict[str, float] = {}
        processes = ProcessPoolExecutor(args.workers, mp_context=get_context("spawn"))
        with ThreadPoolExecutor(args.workers) as threads, processes:
            list(processes.map(pillow, jobs[: args.workers]))  # start them
            for number in range(args.rounds):
                times = _round(
                    source, recipe, jobs, threads, processes, Path(folder) / str(number), args.workers
                )
                best = {name: min(taken, best.get(name, taken)) for name, taken in times.items()}
    _print(best, len(jobs), sum(len(parts) for _, parts, _ in jobs), args.workers)


def _jobs(source: AnnotatedSource, recipe: Recipe, folder: Path) -> list[Job]:
    """What the conversion does to each file: found by doing it."""
    (folder / "first").mkdir()
    store = ImageStore(folder / "first", recipe.pictures)
    jobs: list[Job] = []
    for image in source.images:
        prepared = prepare_image(image, recipe, recipe.known_names(), store)
        parts = [(unit.crop, unit.size) for unit in prepared.units if unit.crop]
        jobs.append((image.file, parts, recipe.pictures.quality))
    return jobs


def _round(
    source: AnnotatedSource,
    recipe: Recipe,
    jobs: list[Job],
    threads: Executor,
    processes: Executor,
    folder: Path,
    workers: int,
) -> dict[str, float]:
    folder.mkdir()
    again = folder.with_name(f"{folder.name}.again")
    again.mkdir()

    def convert(target: Path, earlier: Path | None = None) -> None:
        with contextlib.redirect_stderr(io.StringIO()):
            prepare_all([source], recipe, ImageStore(target, recipe.pictures, earlier), workers)

    return {
        "Pillow, threads": seconds(lambda: list(threads.map(pillow, jobs))),
        "convert": seconds(lambda: convert(folder)),
        "Pillow, processes": seconds(lambda: list(processes.map(pillow, jobs))),
        "convert, again": seconds(lambda: convert(again, folder)),
    }


def _print(best: dict[str, float], images: int, units: int, workers: int) -> None:
    limit = min(best["Pillow, threads"], best["Pillow, processes"])
    load = os.getloadavg()[0]
    title = f"{images} pictures, {units} written, {workers} worker(s), load {load:.1f}"
    table = Table("", "seconds", "pictures/s", "of the limit", title=title)
    for name, taken in best.items():
        table.add_row(name, f"{taken:.2f}", f"{images / taken:.1f}", f"{limit / taken:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()

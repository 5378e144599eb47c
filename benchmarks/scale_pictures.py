"""Measures how the time and the memory of `inspect` and `convert` grow with the number of pictures.

    python -m benchmarks.scale_pictures 5000 20000 50000 --json scale.json
    python -m benchmarks.scale_pictures 5000 20000 --scene films
    python -m benchmarks.scale_pictures --try

Renders JPEGs of 64 x 64 pixels into folders of two classes below a temporary folder, and runs the commands as
a user would, each in a process of its own. Of `many`, each picture is blurred noise of its own, and one in
twenty is a copy of another: darker, noisier, turned or mirrored. `alike` are pieces in one fixture, all of
which look the same but for noise, and none of which is a copy of another. `films` are twenty, in which the
camera moves slowly along a wall: each is one group.

Prints a Markdown table of seconds, of CPU seconds, which other work on the machine changes less, and of the
most memory that a process held; and what the two largest numbers of pictures let expect of a million: a line
through both. `--json` writes the same.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

REPO = Path(__file__).resolve().parents[1]
SCENES = ("many", "alike", "films")
MANY = 1_000_000  # pictures, of which the time and the memory are extrapolated
_SIDE, _CELLS = 64, 8  # pixels of a picture, and of its cells, whose greys are random
_STEP = 0.1  # pixels by which the camera moves from one picture to the next
_FILMS = 20
_TRIED = (200, 400)
_RECIPE = """
unit: picture
defects: [{name: broken}]
sound: [sound]
families:
  presence: {questions: ["Is something broken?"]}
"""
Greys = NDArray[np.uint8]


@dataclass(frozen=True)
class Measure:
    """What a command took: time by the clock and of all cores, and the most memory it held (resident set)."""

    command: str
    pictures: int
    seconds: float
    cpu_seconds: float
    megabytes: float


def render(scene: str, count: int, seed: int) -> Iterator[Greys]:
    """Yield the greys of each picture, rows by columns."""
    random = np.random.default_rng(seed)
    earlier: list[Greys] = []
    length = -(-count // (_FILMS if scene == "films" else 1))  # pictures of one wall
    wall = _blurred(random, 0)
    for number in range(count):
        if scene == "many":
            greys = _blurred(random, _SIDE)
            if number % 20 == 19:
                turn = int(random.integers(8))
                original = earlier[int(random.integers(len(earlier)))]
                greys = np.rot90(original[:, ::-1] if turn & 4 else original, turn % 4) * 0.9
            elif len(earlier) < 1000:
                earlier.append(_whole(greys))
        else:
            if number % length == 0:
                wall = _blurred(random, _SIDE + 2 + int(_STEP * length))
            at = _STEP * (number % length) if scene == "films" else 0.0
            left, part = int(at), at % 1
            shown = wall[:_SIDE, left : left + _SIDE + 1]
            greys = shown[:, :-1] * (1 - part) + shown[:, 1:] * part
        yield _whole(greys + random.normal(0, 3, greys.shape))


def _blurred(random: np.random.Generator, width: int) -> NDArray[np.floating]:
    """Return noise of some cells a side with a finer one upon it, `_SIDE` pixels high."""
    coarse = random.normal(128, 40, (_CELLS, -(-width // _CELLS)))
    greys = coarse.repeat(_SIDE // _CELLS, 0).repeat(_SIDE // _CELLS, 1)[:, :width]
    for axis in (0, 1):
        greys = np.mean([np.roll(greys, step, axis) for step in range(-2, 3)], axis=0)
    return greys + random.normal(0, 6, (_SIDE // 2, -(-width // 2))).repeat(2, 0).repeat(2, 1)[:, :width]


def _whole(greys: NDArray[np.floating]) -> Greys:
    return np.clip(greys, 0, 255).astype(np.uint8)


def write(folder: Path, scene: str, count: int, seed: int) -> None:
    """Write pictures to `folder`/sound and, one in four, to `folder`/broken."""
    for name in ("sound", "broken"):
        (folder / name).mkdir(parents=True)
    for number, greys in enumerate(render(scene, count, seed)):
        kind = "sound" if number % 4 else "broken"
        Image.fromarray(greys).save(folder / kind / f"photo{number:07d}.jpg", quality=85)


def measure(command: str, arguments: Sequence[str | Path], pictures: int, cwd: Path) -> Measure:
    """Run a command of data_prep in a process of its own."""
    line = [sys.executable, "-m", "data_prep", command, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(REPO)}
    started = time.perf_counter()
    with (cwd / f"{command}.log").open("wb") as log:
        process = subprocess.Popen(line, cwd=cwd, env=environment, stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise SystemExit(f"{command}: exit status {status}\n{(cwd / f'{command}.log').read_text()[-2000:]}")
    cpu_seconds = round(usage.ru_utime + usage.ru_stime, 1)
    return Measure(command, pictures, round(seconds, 1), cpu_seconds, round(usage.ru_maxrss / 1024, 1))


def extrapolated(measures: Sequence[Measure]) -> Measure:
    """Return what a million pictures should take, by a line through the two largest numbers measured."""
    less, more = sorted(measures, key=lambda item: item.pictures)[-2:]
    steps = (MANY - more.pictures) / (more.pictures - less.pictures)
    return Measure(
        more.command,
        MANY,
        round(more.seconds + steps * (more.seconds - less.seconds), 1),
        round(more.cpu_seconds + steps * (more.cpu_seconds - less.cpu_seconds), 1),
        round(more.megabytes + steps * (more.megabytes - less.megabytes), 1),
    )


def table(measures: Sequence[Measure]) -> str:
    """Return a Markdown table, with a last row for a million pictures of each command."""
    lines = [
        "| command | pictures | seconds | CPU seconds | CPU ms a picture | peak MB |",
        "|---|---|---|---|---|---|",
    ]
    for command in dict.fromkeys(item.command for item in measures):
        rows = [item for item in measures if item.command == command]
        expected = [extrapolated(rows)] if len(rows) > 1 else []
        for row in (*rows, *expected):
            about = "" if row in rows else "extrapolated: "
            each = 1000 * row.cpu_seconds / row.pictures
            lines.append(
                f"| {command} | {about}{row.pictures:,} | {row.seconds:,.1f} "
                f"| {row.cpu_seconds:,.1f} | {each:.2f} "
                f"| {row.megabytes:,.0f} |"
            )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("counts", nargs="*", type=int, help="numbers of pictures")
    parser.add_argument("--scene", choices=SCENES, default="many")
    parser.add_argument(
        "--commands", nargs="+", choices=("inspect", "convert"), default=["inspect", "convert"]
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="writes the numbers to this file as well")
    parser.add_argument("--try", dest="tries", action="store_true", help=f"{_TRIED} pictures, to see it run")
    args = parser.parse_args()
    counts = sorted(_TRIED if args.tries else args.counts)
    if not counts:
        parser.error("name numbers of pictures, or --try")
    measures: list[Measure] = []
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            cwd = Path(name)
            write(cwd / "photos", args.scene, count, args.seed)
            (cwd / "recipe.yaml").write_text(_RECIPE, encoding="utf-8")
            common = ["--source", "photos", "--workers", args.workers]
            of_command = {
                "inspect": [*common, "--output", "report.html"],
                "convert": [*common, "--recipe", "recipe.yaml", "--output", "data"],
            }
            for command in args.commands:
                measures.append(measure(command, list(map(str, of_command[command])), count, cwd))
                print(measures[-1], file=sys.stderr, flush=True)
    measures.sort(key=lambda item: args.commands.index(item.command))
    print(table(measures))
    if args.json:
        values = {"scene": args.scene, "workers": args.workers, "measures": list(map(asdict, measures))}
        args.json.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

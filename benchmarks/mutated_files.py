"""What becomes of damaged files: counts of outcomes, by format.

    python -m benchmarks.mutated_files [FOLDER] [--versions 300] [--pictures 600] [--seed 0]

FOLDER holds real sources, a folder per format named as --format names it (`voc/`, `coco/` ...); pictures that
lie elsewhere are looked for in FOLDER/images, and a folder `large` may hold pictures of any kind. A format
that it lacks is tried on a small example made here. Each version of a source has one annotation file (or
mask) that was changed as `MUTATIONS` say; it is read with --format auto or with the format's own reader,
and what was read is held against the pictures (`merge`). Pictures are changed likewise and opened.

Outcomes: `read`; `noted`: read, with notes that the sound source does not have; `refused`: an InputError or
a list of problems, each one line; `traceback`: anything else, printed; `slow`: more than --limit seconds.
The exit code is 1 if there is a traceback or a slow file.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image, features

from benchmarks.example_sources import write_examples
from data_prep.annotations import AnnotatedSource, merge_annotations
from data_prep.formats import READERS, find_reader
from data_prep.source_folder import IMAGE_SUFFIXES, SourceFolder
from llava.common.errors import InputError
from llava.common.images import open_image, read_image

OUTCOMES = ("read", "noted", "refused", "traceback", "slow")
_SHOWN = 5  # tracebacks of one format
_MOST_FILES = 12  # annotation files of a source
_ODD_NUMBERS = ["nan", "inf", "-inf", "-1", "-0.0", "0", "1e308", "-1e308", "1e-320", "2147483648", "1e400"]
_ODD_NUMBERS += ["0x10", "1_0", "\u0661", "12,5", "9" * 30, "9" * 5000, '""', "null"]
_ODD_VALUES: list[Any] = [None, True, -1, 0.5, 10**30, math.nan, "", " ", "x" * 9000, "\ud800", "\0", [], {}]
_ODD_VALUES += [[[]], {"": ""}, [None], ["a", 1], "../../etc/passwd", "<image>", "nul\n\nline"]
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
_NAMED = re.compile(rb"\"[^\"]*\"\s*:\s*|</?\w+>|\w+=\"[^\"]*\"|[^,\n]*,")


def flipped(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 8, 64))):
        if changed:
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def cut_short(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def part_removed(data: bytes, rng: random.Random) -> bytes:
    start, stop = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:start] + data[stop:]


def part_repeated(data: bytes, rng: random.Random) -> bytes:
    start, stop = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:stop] + data[start:stop] * rng.choice((1, 3)) + data[stop:]


def line_removed(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    at = rng.randrange(len(lines) + 1)
    return b"".join(lines[:at] + lines[at + 1 :])


def line_repeated(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True) or [b""]
    at, to = rng.randrange(len(lines)), rng.randrange(len(lines))
    return b"".join([*lines[:to], lines[at], *lines[to:]])


def number_changed(data: bytes, rng: random.Random) -> bytes:
    found = list(_NUMBER.finditer(data))
    for one in sorted(rng.sample(found, min(len(found), rng.choice((1, 1, 3)))), key=lambda m: -m.start()):
        data = data[: one.start()] + rng.choice(_ODD_NUMBERS).encode() + data[one.end() :]
    return data


def name_removed(data: bytes, rng: random.Random) -> bytes:
    """A key of JSON, a tag or attribute of XML, a cell of CSV."""
    found = list(_NAMED.finditer(data))
    one = rng.choice(found) if found else None
    return data[: one.start()] + data[one.end() :] if one else data


def nested(data: bytes, rng: random.Random) -> bytes:
    """Something nested deeply at a random number or at the end."""
    depth = rng.choice((50, 1000, 100_000))
    opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"<a>", b"</a>"), (b"- ", b"")))
    deep = opening * depth + b"1" + closing * depth
    found = list(_NUMBER.finditer(data))
    one = rng.choice(found) if found else None
    return data[: one.start()] + deep + data[one.end() :] if one else data + deep


def encoded_otherwise(data: bytes, rng: random.Random) -> bytes:
    text = data.decode("utf-8", errors="replace")
    ways: list[Callable[[], bytes]] = [
        lambda: b"\xef\xbb\xbf" + data,
        lambda: text.encode("utf-16"),
        lambda: text.replace("\n", "\r").encode(),
        lambda: text.replace("i", "ı").encode("cp1254", errors="replace"),
        lambda: data + b"\0" * 100,
        lambda: b"",
        lambda: data + data,
    ]
    return rng.choice(ways)()


def value_changed(data: bytes, rng: random.Random) -> bytes:
    """In JSON, a value of another kind, or a key or element that is gone; else as `number_changed`."""
    try:
        root = json.loads(data)
    except ValueError:
        return number_changed(data, rng)
    places: list[tuple[Any, Any]] = []
    stack = [root]
    while stack:
        holder = stack.pop()
        for key, value in list(holder.items() if isinstance(holder, dict) else enumerate(holder)):
            places.append((holder, key))
            if isinstance(value, dict | list):
                stack.append(value)
    for _ in range(rng.choice((1, 1, 2))):
        if places:
            holder, key = places.pop(rng.randrange(len(places)))
            if isinstance(holder, dict) and rng.random() < 0.3:
                del holder[key]
            else:
                holder[key] = rng.choice(_ODD_VALUES)
    return json.dumps(root).encode()


BINARY = (flipped, cut_short, part_removed, part_repeated)
MUTATIONS = (
    *(flipped, cut_short, part_removed, part_repeated, line_removed, line_repeated, encoded_otherwise),
    *(number_changed, number_changed, name_removed, nested, value_changed, value_changed, value_changed),
)
_BINARY_SUFFIXES = IMAGE_SUFFIXES | {".parquet", ".arrow"}


def mutate(data: bytes, suffix: str, rng: random.Random) -> tuple[bytes, str]:
    """A changed version, and the name of what was done."""
    how = rng.choice(BINARY if suffix.lower() in _BINARY_SUFFIXES else MUTATIONS)
    return how(data, rng), how.__name__


class TooSlowError(BaseException):
    """Not an Exception: no reader may take it for a damaged file."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """TooSlowError after so many seconds; code in C is measured, not stopped."""

    def stop(*_: object) -> None:
        raise TooSlowError

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    started = time.monotonic()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if time.monotonic() - started > seconds:
        raise TooSlowError


class Tally:
    """Counts of outcomes by format, and what did not go well in words."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.counts: dict[str, Counter[str]] = {}
        self.done: Counter[str] = Counter()

    def count(self, format: str, how: str, run: Callable[[], str]) -> None:
        counts = self.counts.setdefault(format, Counter())
        try:
            with time_limit(self.limit):
                outcome = run()
        except InputError as error:
            one_line(str(error))
            outcome = "refused"
        except TooSlowError:
            outcome = "slow"
            print(f"{format}, {how}: more than {self.limit:g} s", file=sys.stderr)
        except Exception:
            outcome = "traceback"
            if counts[outcome] < _SHOWN:
                print(f"{format}, {how}:\n{traceback.format_exc()}", file=sys.stderr)
        counts[outcome] += 1
        self.done[how] += 1

    def table(self) -> str:
        rows = [["format", "versions", *OUTCOMES]]
        total: Counter[str] = Counter()
        for format, counts in self.counts.items():
            rows.append([format, str(counts.total()), *(str(counts[name]) for name in OUTCOMES)])
            total += counts
        rows.append(["all", str(total.total()), *(str(total[name]) for name in OUTCOMES)])
        lines = [f"| {' | '.join(row)} |" for row in rows]
        return "\n".join([lines[0], "|---|" + "---:|" * (len(rows[0]) - 1), *lines[1:]])

    @property
    def failed(self) -> bool:
        return any(counts["traceback"] or counts["slow"] for counts in self.counts.values())


def one_line(text: str) -> None:
    """What a user reads is one line that a terminal and a JSON file can hold."""
    assert text.strip() and len(text.splitlines()) == 1, f"not one line: {text!r:.300}"
    assert text.isprintable(), f"holds control characters: {text!r:.300}"
    text.encode()


def notes_of(source: AnnotatedSource, sizes: Callable[[Path], tuple[tuple[int, int], int]]) -> list[str]:
    """Merge what was read with the pictures; the notes on it. AssertionError where a box makes no sense."""
    notes = list(source.notes)
    for image in source.images:
        upright, orientation = sizes(image.file)
        shapes, said = merge_annotations(image, upright, orientation)
        notes += said
        for shape in shapes:
            x1, y1, x2, y2 = shape.box
            assert 0 <= x1 < x2 <= upright[0] and 0 <= y1 < y2 <= upright[1], f"box {shape}"
            assert shape.area is None or (math.isfinite(shape.area) and shape.area >= 0), f"area {shape}"
            shape.name.encode()
        for annotation in image.annotations:
            for talk in annotation.conversations:
                assert all(question and answer for question, answer in talk.turns)
    for note in notes:
        one_line(note)
    return notes


def try_format(
    format: str, root: Path, image_root: Path | None, versions: int, rng: random.Random, tally: Tally
) -> None:
    """Read so many changed versions of the source in `root`, which is left as it was."""
    folder = SourceFolder.scan(root, image_root)
    files = [path for path in folder.files if path.suffix.lower() not in IMAGE_SUFFIXES]
    files += [path for path in folder.files if "mask" in path.as_posix().casefold()]
    files = rng.sample(files, min(len(files), _MOST_FILES))
    known: dict[Path, tuple[tuple[int, int], int]] = {}

    def sizes(path: Path) -> tuple[tuple[int, int], int]:
        if path not in known:
            opened = read_image(path)
            known[path] = opened.image.size, opened.orientation
        return known[path]

    def read(own: bool) -> str:
        scanned = SourceFolder.scan(root, image_root)
        reader = READERS[format] if own else find_reader(scanned)[0]
        source, problems = reader.read(scanned)
        for problem in problems:
            one_line(problem)
        notes = notes_of(source, sizes)
        return "refused" if problems else "noted" if len(notes) > usual else "read"

    usual = sys.maxsize
    if read(own=True) != "read":
        raise SystemExit(f"{root}: the source cannot be read as it is")
    usual = len(notes_of(READERS[format].read(folder)[0], sizes))
    for _ in range(versions):
        file = rng.choice(files)
        data = file.read_bytes()
        changed, how = mutate(data, file.suffix, rng)
        file.write_bytes(changed)
        own = rng.random() < 0.5
        try:
            tally.count(format, f"{how} {file.name}", partial(read, own))
        finally:
            file.write_bytes(data)


def image_kinds(folder: Path | None) -> dict[str, bytes]:
    """A picture of each codec, and those in `folder`."""
    grey = Image.linear_gradient("L")
    colour = Image.merge("RGB", (grey, grey.rotate(90), grey.rotate(180)))
    kinds = {
        "jpeg": (
            colour,
            "JPEG",
            {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"},
        ),
        "jpeg progressive": (colour, "JPEG", {"progressive": True}),
        "jpeg cmyk": (colour.convert("CMYK"), "JPEG", {}),
        "png": (colour, "PNG", {}),
        "png 16-bit": (grey.convert("I;16"), "PNG", {}),
        "png palette": (colour.quantize(16), "PNG", {"transparency": 3}),
        "png alpha": (Image.merge("RGBA", (*colour.split(), grey)), "PNG", {}),
        "tiff": (colour, "TIFF", {}),
        "tiff lzw": (colour, "TIFF", {"compression": "tiff_lzw"}),
        "tiff float": (grey.convert("F"), "TIFF", {}),
        "bmp": (colour, "BMP", {}),
    }
    if features.check("webp"):
        kinds["webp"] = (colour, "WEBP", {})
    made = {}
    for name, (image, format, options) in kinds.items():
        buffer = io.BytesIO()
        image.save(buffer, format, **options)
        made[name] = buffer.getvalue()
    for path in sorted(folder.glob("*")) if folder else []:
        if path.suffix.lower() in IMAGE_SUFFIXES:
            made[path.name] = path.read_bytes()
    return made


def try_images(kinds: dict[str, bytes], versions: int, rng: random.Random, tally: Tally) -> None:
    names = sorted(kinds)

    def opened(data: bytes) -> str:
        image = open_image(io.BytesIO(data))
        assert image.mode == "RGB" and min(image.size) > 0
        return "read"

    for number in range(versions):
        name = names[number % len(names)]
        changed, how = mutate(kinds[name], ".png", rng)
        tally.count("pictures", f"{how} {name}", partial(opened, changed))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--versions", type=int, default=300, help="of each format")
    parser.add_argument("--pictures", type=int, default=600, help="versions of pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=20, help="seconds for a file")
    args = parser.parse_args()
    tally = Tally(args.limit)
    given: Path | None = args.folder
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        write_examples(work)
        for format in sorted(path.name for path in work.iterdir()):
            images = None
            if given and (given / format).is_dir():
                shutil.rmtree(work / format)
                shutil.copytree(given / format, work / format)
                holds_images = bool(SourceFolder.scan(work / format).images)
                images = None if holds_images else given / "images"
            rng = random.Random(f"{args.seed}/{format}")
            try_format(format, work / format, images, args.versions, rng, tally)
    kinds = image_kinds(given / "large" if given else None)
    try_images(kinds, args.pictures, random.Random(f"{args.seed}/pictures"), tally)
    print(tally.table())
    return int(tally.failed)


if __name__ == "__main__":
    sys.exit(main())

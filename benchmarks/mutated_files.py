"""Count how reading damaged files ends, by format.

    python -m benchmarks.mutated_files [FOLDER] [--versions 300] [--pictures 600] [--seed 0]

FOLDER holds real sources, a folder for each format named as --format names it (`voc/`, `coco/` ...); images
that lie elsewhere are looked for in FOLDER/images, and a folder `large` may hold images of any kind. A format
that it lacks is tried on a small example made here. Each version of a source has one annotation file (or
mask) changed by one of `MUTATIONS`; it is read with --format auto or with the format's own reader, and its
annotations are checked against the images (`merge_annotations`). Images are changed likewise and opened.

Outcomes: `read`; `noted`: read, with notes that the undamaged source does not have; `refused`: an InputError
or a list of problems, each one line; `traceback`: anything else, printed; `slow`: more than --limit seconds.
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
_MAX_SHOWN = 5  # tracebacks of one format
_MAX_FILES = 12  # annotation files of a source
_ODD_NUMBERS = ["nan", "inf", "-inf", "-1", "-0.0", "0", "1e308", "-1e308", "1e-320", "2147483648", "1e400"]
_ODD_NUMBERS += ["0x10", "1_0", "\u0661", "12,5", "9" * 30, "9" * 5000, '""', "null"]
_ODD_VALUES: list[Any] = [None, True, -1, 0.5, 10**30, math.nan, "", " ", "x" * 9000, "\ud800", "\0", [], {}]
_ODD_VALUES += [[[]], {"": ""}, [None], ["a", 1], "../../etc/passwd", "<image>", "nul\n\nline"]
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
_NAMED = re.compile(rb"\"[^\"]*\"\s*:\s*|</?\w+>|\w+=\"[^\"]*\"|[^,\n]*,")


def flip_bytes(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 8, 64))):
        if changed:
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def cut_short(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def remove_part(data: bytes, rng: random.Random) -> bytes:
    start, stop = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:start] + data[stop:]


def repeat_part(data: bytes, rng: random.Random) -> bytes:
    start, stop = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:stop] + data[start:stop] * rng.choice((1, 3)) + data[stop:]


def remove_line(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    index = rng.randrange(len(lines) + 1)
    return b"".join(lines[:index] + lines[index + 1 :])


def repeat_line(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True) or [b""]
    index, target = rng.randrange(len(lines)), rng.randrange(len(lines))
    return b"".join([*lines[:target], lines[index], *lines[target:]])


def change_number(data: bytes, rng: random.Random) -> bytes:
    numbers = list(_NUMBER.finditer(data))
    drawn = rng.sample(numbers, min(len(numbers), rng.choice((1, 1, 3))))
    for match in sorted(drawn, key=lambda match: -match.start()):
        data = data[: match.start()] + rng.choice(_ODD_NUMBERS).encode() + data[match.end() :]
    return data


def remove_name(data: bytes, rng: random.Random) -> bytes:
    """Remove a key of JSON, a tag or attribute of XML, or a cell of CSV."""
    matches = list(_NAMED.finditer(data))
    match = rng.choice(matches) if matches else None
    return data[: match.start()] + data[match.end() :] if match else data


def nest_deeply(data: bytes, rng: random.Random) -> bytes:
    """Put something nested deeply in the place of a random number, or at the end."""
    depth = rng.choice((50, 1000, 100_000))
    opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"<a>", b"</a>"), (b"- ", b"")))
    deep = opening * depth + b"1" + closing * depth
    matches = list(_NUMBER.finditer(data))
    match = rng.choice(matches) if matches else None
    return data[: match.start()] + deep + data[match.end() :] if match else data + deep


def encode_otherwise(data: bytes, rng: random.Random) -> bytes:
    text = data.decode("utf-8", errors="replace")
    encodings: list[Callable[[], bytes]] = [
        lambda: b"\xef\xbb\xbf" + data,
        lambda: text.encode("utf-16"),
        lambda: text.replace("\n", "\r").encode(),
        lambda: text.replace("i", "ı").encode("cp1254", errors="replace"),
        lambda: data + b"\0" * 100,
        lambda: b"",
        lambda: data + data,
    ]
    return rng.choice(encodings)()


def change_value(data: bytes, rng: random.Random) -> bytes:
    """In JSON, replace a value by one of another type, or remove a key; else do as `change_number`."""
    try:
        root = json.loads(data)
    except ValueError:
        return change_number(data, rng)
    places = _places(root)
    for _ in range(rng.choice((1, 1, 2))):
        if places:
            container, key = places.pop(rng.randrange(len(places)))
            if isinstance(container, dict) and rng.random() < 0.3:
                del container[key]
            else:
                container[key] = rng.choice(_ODD_VALUES)
    return json.dumps(root).encode()


def _places(root: Any) -> list[tuple[Any, Any]]:
    """Return the (container, key or index) of every value of JSON."""
    places: list[tuple[Any, Any]] = []
    stack = [root]
    while stack:
        container = stack.pop()
        for key, value in list(container.items() if isinstance(container, dict) else enumerate(container)):
            places.append((container, key))
            if isinstance(value, dict | list):
                stack.append(value)
    return places


BINARY_MUTATIONS = (flip_bytes, cut_short, remove_part, repeat_part)
MUTATIONS = (
    *(flip_bytes, cut_short, remove_part, repeat_part, remove_line, repeat_line, encode_otherwise),
    *(change_number, change_number, remove_name, nest_deeply, change_value, change_value, change_value),
)
_BINARY_SUFFIXES = IMAGE_SUFFIXES | {".parquet", ".arrow"}


def mutate(data: bytes, suffix: str, rng: random.Random) -> tuple[bytes, str]:
    """Return a changed version, and the name of the mutation."""
    mutation = rng.choice(BINARY_MUTATIONS if suffix.lower() in _BINARY_SUFFIXES else MUTATIONS)
    return mutation(data, rng), mutation.__name__


class TooSlowError(BaseException):
    """A file took longer than the limit. Not an Exception: no reader may take it for a damaged file."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise a TooSlowError after so many seconds; code in C is not stopped, but measured."""

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


class Outcomes:
    """Counts outcomes by format, and prints tracebacks and slow files."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.counts: dict[str, Counter[str]] = {}

    def count(self, format: str, description: str, run: Callable[[], str]) -> None:
        """Count the outcome of `run`, which returns it or raises."""
        counts = self.counts.setdefault(format, Counter())
        try:
            with time_limit(self.limit):
                outcome = run()
        except InputError as error:
            check_line(str(error))
            outcome = "refused"
        except TooSlowError:
            outcome = "slow"
            print(f"{format}, {description}: more than {self.limit:g} s", file=sys.stderr)
        except Exception:
            outcome = "traceback"
            if counts[outcome] < _MAX_SHOWN:
                print(f"{format}, {description}:\n{traceback.format_exc()}", file=sys.stderr)
        counts[outcome] += 1

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


def check_line(text: str) -> None:
    """Assert that a message is one line that a terminal and a JSON file can hold."""
    assert text.strip() and len(text.splitlines()) == 1, f"not one line: {text!r:.300}"
    assert text.isprintable(), f"holds control characters: {text!r:.300}"
    text.encode()


class ImageSizes:
    """The upright size and the EXIF orientation of images, each decoded once."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, int], int]] = {}

    def of(self, path: Path) -> tuple[tuple[int, int], int]:
        if path not in self._known:
            opened = read_image(path)
            self._known[path] = opened.image.size, opened.orientation
        return self._known[path]


def check_source(source: AnnotatedSource, sizes: ImageSizes) -> list[str]:
    """Merge the annotations of a source and return all notes. AssertionError where a box makes no sense."""
    notes = list(source.notes)
    for image in source.images:
        upright, orientation = sizes.of(image.file)
        shapes, notes_of_image = merge_annotations(image, upright, orientation)
        notes += notes_of_image
        for shape in shapes:
            x1, y1, x2, y2 = shape.box
            assert 0 <= x1 < x2 <= upright[0] and 0 <= y1 < y2 <= upright[1], f"box {shape}"
            assert shape.area is None or (math.isfinite(shape.area) and shape.area >= 0), f"area {shape}"
            shape.name.encode()
        for annotation in image.annotations:
            for conversation in annotation.conversations:
                assert all(question and answer for question, answer in conversation.turns)
    for note in notes:
        check_line(note)
    return notes


def annotation_files(folder: SourceFolder, rng: random.Random) -> list[Path]:
    """Return the files to change: annotations and masks."""
    files = [path for path in folder.files if path.suffix.lower() not in IMAGE_SUFFIXES]
    files += [path for path in folder.files if "mask" in path.as_posix().casefold()]
    return rng.sample(files, min(len(files), _MAX_FILES))


def try_format(
    format: str, root: Path, image_root: Path | None, versions: int, rng: random.Random, outcomes: Outcomes
) -> None:
    """Read changed versions of a source.

    Args:
        format: What `--format` calls its format.
        root: The source, which is left as it was.
        image_root: Where its images are, None if below `root`.
        versions: How many.
        rng: Draws files and mutations.
        outcomes: Counts the outcomes.
    """
    folder = SourceFolder.scan(root, image_root)
    files = annotation_files(folder, rng)
    sizes = ImageSizes()
    undamaged, problems = READERS[format].read(folder)
    if problems:
        raise SystemExit(f"{root}: the source cannot be read as it is")
    usual_notes = len(check_source(undamaged, sizes))

    def read(with_own_reader: bool) -> str:
        scanned = SourceFolder.scan(root, image_root)
        reader = READERS[format] if with_own_reader else find_reader(scanned)[0]
        source, problems = reader.read(scanned)
        for problem in problems:
            check_line(problem)
        notes = check_source(source, sizes)
        return "refused" if problems else "noted" if len(notes) > usual_notes else "read"

    for _ in range(versions):
        file = rng.choice(files)
        data = file.read_bytes()
        changed, mutation = mutate(data, file.suffix, rng)
        file.write_bytes(changed)
        with_own_reader = rng.random() < 0.5
        try:
            outcomes.count(format, f"{mutation} {file.name}", partial(read, with_own_reader))
        finally:
            file.write_bytes(data)


def example_images(folder: Path | None) -> dict[str, bytes]:
    """Return an image of each codec, and those in `folder`, as files' bytes by name."""
    grey = Image.linear_gradient("L")
    colour = Image.merge("RGB", (grey, grey.rotate(90), grey.rotate(180)))
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"
    examples: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "jpeg": (colour, "JPEG", {"exif": exif}),
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
        examples["webp"] = (colour, "WEBP", {})
    encoded = {}
    for name, (image, format, options) in examples.items():
        buffer = io.BytesIO()
        image.save(buffer, format, **options)
        encoded[name] = buffer.getvalue()
    for path in sorted(folder.glob("*")) if folder else []:
        if path.suffix.lower() in IMAGE_SUFFIXES:
            encoded[path.name] = path.read_bytes()
    return encoded


def try_images(images: dict[str, bytes], versions: int, rng: random.Random, outcomes: Outcomes) -> None:
    """Open so many changed versions of `images` in turn."""
    names = sorted(images)

    def open_changed(data: bytes) -> str:
        image = open_image(io.BytesIO(data))
        assert image.mode == "RGB" and min(image.size) > 0
        return "read"

    for number in range(versions):
        name = names[number % len(names)]
        changed, mutation = mutate(images[name], ".png", rng)
        outcomes.count("pictures", f"{mutation} {name}", partial(open_changed, changed))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--versions", type=int, default=300, help="of each format")
    parser.add_argument("--pictures", type=int, default=600, help="versions of pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=20, help="seconds for a file")
    args = parser.parse_args()
    outcomes = Outcomes(args.limit)
    given: Path | None = args.folder
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        write_examples(work)
        for format in sorted(path.name for path in work.iterdir()):
            image_root = None
            if given and (given / format).is_dir():
                shutil.rmtree(work / format)
                shutil.copytree(given / format, work / format)
                holds_images = bool(SourceFolder.scan(work / format).images)
                image_root = None if holds_images else given / "images"
            rng = random.Random(f"{args.seed}/{format}")
            try_format(format, work / format, image_root, args.versions, rng, outcomes)
    images = example_images(given / "large" if given else None)
    try_images(images, args.pictures, random.Random(f"{args.seed}/pictures"), outcomes)
    print(outcomes.table())
    return int(outcomes.failed)


if __name__ == "__main__":
    sys.exit(main())

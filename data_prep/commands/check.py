"""`python -m data_prep check`: find what is wrong with LLaVA conversation JSON, from whatever tool."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from data_prep.commands.lint import FINDINGS, Example, Linter, Size
from data_prep.formats.sizes import image_size
from data_prep.images.decode import decoded
from llava.common.errors import InputError
from llava.common.files import inside, write_json
from llava.common.json_stream import stream_records


def run(args: argparse.Namespace) -> int:
    """Check as `args` say, which are those of `command_lines.parse_check`."""
    if not args.image_folder.is_dir():
        raise InputError(f"--image-folder {args.image_folder}: no such folder")
    if len({path.resolve() for path in args.files}) < len(args.files):
        raise InputError("a file is named twice; each is to be compared with the others")
    sizes = _sizes(args.image_folder)
    linter = Linter(_token_counter(args.tokenizer), args.max_length, args.picture_tokens, sizes)
    for file in args.files:
        before = linter.records
        linter.start_file()
        for index, (_, value) in enumerate(stream_records(file)):
            linter.check_record(file, index, value)
        linter.finish_file()
        if linter.records == before:
            raise InputError(f"{file}: holds no records")
    linter.finish()
    check_images(linter, args.image_folder, args.workers, decode=not args.no_pictures)
    if args.json:
        _write(args.json, linter, args.files)
    _report(Console(), linter, len(args.files), decoded=not args.no_pictures)
    return 1 if linter.findings else 0


def _token_counter(folder: Path | None) -> Callable[[str], int]:
    if folder is None:
        return lambda text: (len(text.encode()) + 3) // 4
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    if not file.is_file():
        raise InputError(f"--tokenizer {folder}: holds no tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise InputError(f"{file}: not a tokenizer ({str(error)[:160]})") from None
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def _sizes(folder: Path) -> Callable[[str], Size | None]:
    """Return a function from an image's name to its size; None where `check_images` will say why."""

    @cache
    def size_of(name: str) -> Size | None:
        try:
            return image_size(inside(folder, name))
        except (InputError, OSError, ValueError):
            return None

    return size_of


def check_images(linter: Linter, folder: Path, workers: int, *, decode: bool) -> None:
    """Add findings about the images that the records name; each image is opened once.

    Args:
        linter: Has checked all records.
        folder: The image folder.
        workers: Threads.
        decode: Decode the images, and compare their pixels across files; else only check that they exist.
    """
    names = list(linter.images)
    by_pixels: dict[str, str] = {}
    pool = ThreadPoolExecutor(workers)
    try:
        results = track(
            pool.map(partial(_check_image, folder, decode), names),
            "pictures",
            len(names),
            console=Console(stderr=True),
            transient=True,
        )
        for name, (finding, detail) in zip(names, results, strict=True):
            location, files = linter.images[name]
            if finding:
                linter.add_finding(finding, location, detail)
            if len(files) > 1:
                linter.add_finding("shared-name", location, f"{name} in {_join_files(files)}")
            if finding or not decode:
                continue
            first = by_pixels.setdefault(detail, name)
            others = linter.images[first][1]
            if first != name and (files - others or others - files):
                linter.add_finding("shared-picture", location, f"{name} is {first} of {_join_files(others)}")
    finally:
        pool.shutdown(cancel_futures=True)


def _check_image(folder: Path, decode: bool, name: str) -> tuple[str, str]:
    """Return (finding, detail) for an image, or ("", hash of its pixels) if nothing is wrong with it."""
    try:
        path = inside(folder, name)
        if not path.is_file():
            return "absent-picture", name
        if not decode:
            return "", ""
        with decoded(path) as opened:
            size, pixels = str(opened.image.size).encode(), opened.image.tobytes()
            return "", hashlib.blake2b(pixels, digest_size=16, key=size).hexdigest()
    except InputError as error:
        outside = "is outside" in str(error)
        return "absent-picture" if outside else "damaged-picture", str(error)
    except (OSError, ValueError):  # no name that a file can have
        return "absent-picture", name


def _join_files(files: set[Path]) -> str:
    return " and ".join(sorted(map(str, files)))


def _write(path: Path, linter: Linter, files: Sequence[Path]) -> None:
    try:
        write_json(path, as_json(linter, files))
    except OSError as error:
        raise InputError(f"--json {path}: cannot be written ({error.strerror})") from None


def as_json(linter: Linter, files: Sequence[Path]) -> dict[str, Any]:
    """Return the findings as plain values."""

    def plain(example: Example) -> dict[str, Any]:
        location = example.location
        return {
            "file": str(location.file),
            "index": location.index,
            "id": location.id,
            "detail": example.detail,
        }

    return {
        "files": [str(file) for file in files],
        "records": linter.records,
        "pictures": len(linter.images),
        "findings": [
            {
                "kind": kind,
                "what": FINDINGS[kind],
                "count": finding.count,
                "examples": [plain(example) for example in finding.examples],
            }
            for kind, finding in _ordered(linter)
        ],
    }


def _ordered(linter: Linter) -> list[tuple[str, Any]]:
    return [(kind, linter.findings[kind]) for kind in FINDINGS if kind in linter.findings]


def _report(console: Console, linter: Linter, files: int, *, decoded: bool) -> None:
    opened = "all decoded" if decoded else "none decoded"
    summary = f"{linter.records} record(s) in {files} file(s), {len(linter.images)} picture(s), {opened}"
    if not linter.findings:
        console.print(f"{summary}: nothing found", highlight=False)
        return
    table = Table(title=summary, show_lines=True)
    table.add_column("finding")
    table.add_column("count", justify="right")
    table.add_column("for instance (file, index of the record, its id)", overflow="fold")
    for kind, finding in _ordered(linter):
        lines = []
        for example in finding.examples:
            location = example.location
            name = f" ({location.id})" if location.id else ""
            lines.append(
                f"{escape(f'{location.file.name} {location.index}{name}')}: {escape(example.detail)}"
            )
        table.add_row(f"[bold]{kind}[/]\n{escape(FINDINGS[kind])}", str(finding.count), "\n".join(lines))
    console.print(table)

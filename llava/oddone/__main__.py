"""Say which unit of an insulator string is unlike its neighbours: `python -m llava.oddone`."""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from llava.common.cli import CommandParser, add_model_flags
from llava.common.errors import InputError, run_command
from llava.common.files import atomic_path, write_json, write_text
from llava.common.images import open_image
from llava.oddone import Box, OddResult, load_finder

if TYPE_CHECKING:
    from llava.oddone.ask import Asker

ENDINGS = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".heic", ".heif"}

NOTES = """The string is found in the whole photo unless --box says where it is, straightened and cut into its
repeating units. No model is needed, nothing is trained: the units are compared with their neighbours.
OUTPUT gets index.html, which shows everything, oddone.json and the page's pictures. "sure" is said only
where a unit stands out so clearly that it is right as a rule; docs/oddone.md has the figures.

Photos that cannot be looked at are listed at the end, and the exit code is then 2."""


def parse_box(text: str) -> Box:
    """Read x1,y1,x2,y2."""
    try:
        x1, y1, x2, y2 = (float(part) for part in text.split(","))
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is no box; give x1,y1,x2,y2 in pixels") from None
    return x1, y1, x2, y2


def parse_arguments(argv: Sequence[str]) -> Namespace:
    parser = CommandParser(
        "python -m llava.oddone",
        "Say which unit of an insulator string is unlike its neighbours.",
        notes=NOTES,
        examples=[
            "--image-file photo.jpg --output odd",
            "--image-file photo.jpg --box 217,428,908,815 --output odd",
            "--image-file photos/ --output odd",
        ],
    )
    parser.add_argument(
        "--image-file", required=True, nargs="+", type=Path, help="photos, or folders of them"
    )
    parser.add_argument("--box", type=parse_box, metavar="X1,Y1,X2,Y2", help="where the string is, in pixels")
    parser.add_argument(
        "--axis", type=int, metavar="N", help="take candidate N of the axes, 0 the best (default: 0)"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder for what was found")
    add_model_flags(parser, required=False)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_arguments(sys.argv[1:] if argv is None else argv)
    photos = list_photos(args.image_file)
    if args.box and len(photos) > 1:
        raise InputError(f"--box is of one photo, and {len(photos)} are named")
    find = load_finder()
    asker: Asker | None = None
    if args.model_path:
        from llava.oddone.ask import Asker

        asker = Asker(args)
    from llava.oddone.page import Finding, render_page

    findings: list[Finding] = []
    problems: dict[Path, str] = {}
    for photo, name in zip(photos, picture_names(photos), strict=True):
        try:
            image = open_image(photo)
            result = find(image, args.box, args.axis)
            verdict = asker.ask(result) if asker and result.odd else None
        except InputError as error:
            problems[photo] = str(error).removeprefix(f"{photo}: ")
            continue
        finding = Finding(photo, result, save_pictures(image, result, args.output, name), verdict)
        print(f"{photo}: {finding.sentence}")
        for warning in result.warnings:
            print(f"{photo}: note: {warning}", file=sys.stderr)
        findings.append(finding)

    if findings:
        left_out = [{"photo": str(photo), "problem": problem} for photo, problem in problems.items()]
        write_json(args.output / "oddone.json", [finding.to_json() for finding in findings] + left_out)
        write_text(args.output / "index.html", render_page(findings, problems))
        print(f"wrote {args.output / 'index.html'}")
    report_problems(problems, len(photos))
    return 2 if problems else 0


def list_photos(paths: Sequence[Path]) -> list[Path]:
    """Return the photos that are named, and those in the folders that are named, each once."""
    photos: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(
                file
                for file in path.iterdir()
                if file.suffix.lower() in ENDINGS and file.is_file() and not file.name.startswith(".")
            )
            if not inside:
                raise InputError(f"{path}: no photos lie in this folder")
            photos += inside
        elif path.exists():
            photos.append(path)
        else:
            raise InputError(f"{path}: no such photo or folder")
    return list(dict.fromkeys(photos))


def picture_names(photos: Sequence[Path]) -> list[str]:
    """Return how the files of each photo's pictures begin: its stem, with a number where that is taken."""
    names: list[str] = []
    taken: set[str] = set()  # without case, which some disks do not tell apart
    for photo in photos:
        name, number = photo.stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{photo.stem}_{number}"
        taken.add(name.casefold())
        names.append(name)
    return names


def save_pictures(image: Image.Image, result: OddResult, output: Path, name: str) -> dict[str, Path]:
    """Draw what was found in a photo; returns the files by kind of picture."""
    from llava.oddone import picture

    drawn = {"units": picture.draw_units(image, result)}
    if result.units:
        drawn |= {"strip": picture.draw_strip(result), "scores": picture.draw_bars(result)}
        if neighbours := picture.draw_neighbours(result):
            drawn["neighbours"] = neighbours
        if cut_out := picture.draw_without_background(image, result):
            drawn["cut_out"] = cut_out
    files = {}
    for kind, drawing in drawn.items():
        files[kind] = output / f"{name}_{kind}.png"
        with atomic_path(files[kind]) as temporary:
            drawing.save(temporary, format="PNG")
    return files


def report_problems(problems: Mapping[Path, str], photos: int) -> None:
    """Print why photos could not be looked at, of how many."""
    lines = [f"{photo}: {problem}" for photo, problem in problems.items()]
    if len(lines) == 1:
        print(f"error: {lines[0]}", file=sys.stderr)
    elif lines:
        print(f"error: {len(lines)} of {photos} photos could not be looked at:", file=sys.stderr)
        print(*(f"  {line}" for line in lines), sep="\n", file=sys.stderr)


if __name__ == "__main__":
    run_command(main)

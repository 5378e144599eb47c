"""Say which unit of an insulator string is unlike its neighbours: `python -m llava.oddone`."""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from llava.common.cli import CommandParser, add_model_flags
from llava.common.errors import InputError, run_command
from llava.common.files import atomic_path, write_json, write_text
from llava.common.images import open_image
from llava.oddone import Box, OddResult, find_odd

if TYPE_CHECKING:
    from llava.oddone.ask import Asker
    from llava.oddone.page import Finding

ENDINGS = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".heic"}

NOTES = """The string is found in the whole photo unless --box says where it is, straightened and cut into its
repeating units. No model is needed, nothing is trained: the units are compared with their neighbours.
OUTPUT gets index.html, which shows everything, oddone.json and the page's pictures. "sure" is said only
where a unit stands out so clearly that it is right as a rule; docs/oddone.md has the figures."""


def parse_box(text: str) -> Box:
    """Read x1,y1,x2,y2."""
    try:
        x1, y1, x2, y2 = (float(part) for part in text.split(","))
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is no box; give x1,y1,x2,y2 in pixels") from None
    return x1, y1, x2, y2


def main(argv: Sequence[str] | None = None) -> int:
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
    args = parser.parse_args(sys.argv[1:] if argv is None else argv)

    photos = list_photos(args.image_file)
    if args.box and len(photos) > 1:
        raise InputError(f"--box is of one photo, and {len(photos)} are named")
    found = []
    asker: Asker | None = None
    if args.model_path:
        from llava.oddone.ask import Asker

        asker = Asker(args)
    for photo in photos:
        image = open_image(photo)
        try:
            result = find_odd(image, args.box, args.axis)
        except InputError as error:
            raise InputError(f"{photo}: {error}") from None
        finding = show(image, result, _name(photo, photos), args.output, asker)
        print(f"{photo}: {finding.sentence}")
        for warning in result.warnings:
            print(f"{photo}: note: {warning}", file=sys.stderr)
        found.append(finding)

    from llava.oddone.page import render_page

    rows = [
        {"photo": str(photo), **finding.result.to_json()}
        | ({"model": finding.verdict.to_json()} if finding.verdict else {})
        for photo, finding in zip(photos, found, strict=True)
    ]
    write_json(args.output / "oddone.json", rows)
    write_text(args.output / "index.html", render_page(found))
    print(f"wrote {args.output / 'index.html'}")
    return 0


def list_photos(paths: Sequence[Path]) -> list[Path]:
    """Return the photos that are named, and those in the folders that are named."""
    photos: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in ENDINGS)
            if not inside:
                raise InputError(f"{path}: no photos lie in this folder")
            photos += inside
        else:
            photos.append(path)
    return photos


def _name(photo: Path, photos: Sequence[Path]) -> str:
    """Return a name for the photo's pictures that no other photo has."""
    twins = [other for other in photos if other.stem == photo.stem]
    return photo.stem if len(twins) == 1 else f"{photo.stem}_{twins.index(photo) + 1}"


def show(image: Image.Image, result: OddResult, name: str, output: Path, asker: Asker | None) -> Finding:
    """Write the pictures of what was found in a photo, and ask the model about it, if there is one."""
    from llava.oddone import picture
    from llava.oddone.page import Finding

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
    return Finding(name, result, files, asker.ask(result) if asker and result.odd else None)


if __name__ == "__main__":
    run_command(main)

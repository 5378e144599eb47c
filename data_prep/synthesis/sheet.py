"""Draws contact sheets of made pictures: a row for each with photo, mask and result, for eyes to judge."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from data_prep.synthesis.painted import Photo
from llava.common.boxes import Box
from llava.common.files import atomic_path
from llava.common.images import open_image
from llava.common.synthetic import MadeAnnotation, MadeImage, SyntheticFile

SHEET = "contact_sheet"
SHOWN = 60
_ROWS, _CELL, _GAP, _TEXT = 12, 220, 4, 190
_TITLES = ("photo", "mask", "result", "photo, enlarged", "result, enlarged")
_TOP = 16  # the line of titles
_BACKGROUND, _THERE, _MADE = (24, 24, 24), "yellow", "red"
_AROUND = 0.6  # what is enlarged beyond a box, as a share of its longer side
_LEAST_SHOWN = 48  # pixels of the photo that are enlarged at least


def draw_sheets(
    folder: Path, file: SyntheticFile, photos: Mapping[str, Photo], shown: int = SHOWN
) -> list[Path]:
    """Draw contact_sheet.png, contact_sheet_2.png and so on into a folder.

    Args:
        folder: The folder of the pictures.
        file: What its synthetic.json holds.
        photos: The photos by name.
        shown: How many pictures at most, spread evenly over all.

    Returns:
        The files.
    """
    count = min(shown, len(file.images))
    chosen = [file.images[at * len(file.images) // count] for at in range(count)]
    boxes: dict[int, list[MadeAnnotation]] = {}
    for annotation in file.annotations:
        boxes.setdefault(annotation.image_id, []).append(annotation)
    pages = []
    for number, start in enumerate(range(0, count, _ROWS), start=1):
        path = folder / (f"{SHEET}.png" if number == 1 else f"{SHEET}_{number}.png")
        page = _page(folder, chosen[start : start + _ROWS], boxes, photos)
        with atomic_path(path) as temporary:
            page.save(temporary, format="PNG")
        pages.append(path)
    return pages


def _page(
    folder: Path,
    images: Sequence[MadeImage],
    boxes: Mapping[int, Sequence[MadeAnnotation]],
    photos: Mapping[str, Photo],
) -> Image.Image:
    width = _TEXT + len(_TITLES) * (_CELL + _GAP)
    page = Image.new("RGB", (width, _TOP + len(images) * (_CELL + _GAP)), _BACKGROUND)
    draw = ImageDraw.Draw(page)
    for column, title in enumerate(_TITLES):
        draw.text((_TEXT + column * (_CELL + _GAP), 2), title)
    for row, image in enumerate(images):
        y = _TOP + row * (_CELL + _GAP)
        draw.multiline_text((_GAP, y), _facts(image))
        photo = Image.fromarray(photos[image.synthetic.parents[0].name].pixels())
        for column, cell in enumerate(_cells(folder, image, photo, boxes[image.id])):
            page.paste(cell, (_TEXT + column * (_CELL + _GAP), y))
    return page


def _facts(image: MadeImage) -> str:
    """Return what a row says of its picture, in lines that fit."""
    facts = image.synthetic
    name = Path(image.file_name).stem
    paragraphs = [name, f"{facts.method}: {facts.kind or 'background'}", f"seed {facts.seed}"]
    paragraphs += [f"{key}: {value}" for key, value in facts.details.items()]
    paragraphs += [facts.prompt] if facts.prompt else []
    paragraphs += [f"from {parent.name}" for parent in facts.parents]
    return "\n".join(line for text in paragraphs for line in textwrap.wrap(text, 29)[:5])


def _cells(
    folder: Path, image: MadeImage, photo: Image.Image, annotations: Sequence[MadeAnnotation]
) -> list[Image.Image]:
    result = open_image(folder / image.file_name)
    mask = open_image(folder / image.synthetic.mask)
    made = [annotation.box for annotation in annotations if annotation.made]
    there = [annotation.box for annotation in annotations if not annotation.made]
    close = _enlarged(made[0], photo.size) if made else (0, 0, *photo.size)
    return [
        _with_boxes(photo, {_THERE: there}),
        _fit(mask),
        _with_boxes(result, {_THERE: there, _MADE: made}),
        _fit(photo.crop(close)),
        _fit(result.crop(close)),
    ]


def _enlarged(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the square around a box that is shown enlarged, in whole pixels of a picture of `size`."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    longer = max(box[2] - box[0], box[3] - box[1])
    half = max(longer * (0.5 + _AROUND), _LEAST_SHOWN / 2)
    left, top = max(0, round(x - half)), max(0, round(y - half))
    return left, top, min(size[0], round(x + half)), min(size[1], round(y + half))


def _fit(image: Image.Image) -> Image.Image:
    """Return an image scaled to the size of a cell, up or down."""
    factor = min(_CELL / side for side in image.size)
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _with_boxes(image: Image.Image, boxes: Mapping[str, Sequence[Box]]) -> Image.Image:
    """Return an image as a cell, with boxes in colours; lines are a pixel of the cell."""
    cell = _fit(image)
    draw = ImageDraw.Draw(cell)
    scale = np.array((cell.width / image.width, cell.height / image.height) * 2)
    for colour, of_colour in boxes.items():
        for box in of_colour:
            x1, y1, x2, y2 = np.array(box) * scale
            draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour)
    return cell

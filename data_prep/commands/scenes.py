"""`python -m data_prep scenes`: render a data set of scenes with Pascal VOC annotations."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image, ImageDraw
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from data_prep.scenes.compose import STRING, render
from data_prep.scenes.raster import Box
from llava.common.files import atomic_folder, atomic_path, write_text

_SHEET_IMAGES, _SHEET_COLUMNS, _SHEET_CELL = 30, 6, 300


class _Rate(ProgressColumn):
    """Pictures a second, once there are any."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} pictures/s" if task.speed else "")


@dataclass(frozen=True)
class WrittenScene:
    """A scene that a worker wrote: the name of its files and its objects."""

    name: str
    objects: list[tuple[str, Box]]


def scene_name(seed: int, index: int) -> str:
    """Return the file name without suffix. It does not give away what the image shows."""
    return f"scene_{seed}_{index:05d}"


def voc_xml(name: str, size: tuple[int, int], objects: Sequence[tuple[str, Box]]) -> str:
    """Return a Pascal VOC annotation. `size` is (width, height); boxes are 0-based, x2 and y2 exclusive."""
    width, height = size
    root = ElementTree.Element("annotation")

    def add(parent: ElementTree.Element, tag: str, text: object = None) -> ElementTree.Element:
        element = ElementTree.SubElement(parent, tag)
        if text is not None:
            element.text = str(text)
        return element

    add(root, "folder", "images")
    add(root, "filename", f"{name}.jpg")
    frame = add(root, "size")
    for tag, value in (("width", width), ("height", height), ("depth", 3)):
        add(frame, tag, value)
    add(root, "segmented", 0)
    for label, (x1, y1, x2, y2) in objects:
        entry = add(root, "object")
        add(entry, "name", label)
        add(entry, "pose", "Unspecified")
        add(entry, "truncated", int(x1 <= 0 or y1 <= 0 or x2 >= width or y2 >= height))
        add(entry, "difficult", 0)
        box = add(entry, "bndbox")
        for tag, value in (("xmin", x1), ("ymin", y1), ("xmax", x2), ("ymax", y2)):
            add(box, tag, value)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def keep_memory() -> None:
    """Have the C library keep the memory that arrays free: fetching it anew takes a quarter of the time.

    glibc raises what it keeps to twice the largest block that was freed so far, up to 32 MB. Elsewhere this
    does nothing.
    """
    np.empty(31 << 20, np.uint8)


def write_scene(index: int, *, folder: Path, seed: int, defect_share: float) -> WrittenScene:
    """Render image `index` and write it and its annotation into `folder`."""
    scene = render(seed, index, defect_share=defect_share)
    name = scene_name(seed, index)
    scene.image.save(folder / "images" / f"{name}.jpg", quality=scene.jpeg_quality)
    write_text(folder / "annotations" / f"{name}.xml", voc_xml(name, scene.image.size, scene.objects))
    return WrittenScene(name, scene.objects)


def write_scenes(
    output: Path, count: int, seed: int, *, workers: int = 1, defect_share: float = 0.5
) -> list[WrittenScene]:
    """Write images 0 to `count` - 1 of `seed` to the new folder `output`, all of them or none.

    Args:
        output: The folder.
        count: How many images.
        seed: Other seeds are other scenes.
        workers: Processes; the bytes do not depend on them.
        defect_share: The share of images with a defect, 0 to 1.

    Raises:
        InputError: `output` exists.
    """
    columns = (
        TextColumn("rendering"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    written: list[WrittenScene] = []
    with atomic_folder(output) as folder, Progress(*columns, console=Console(stderr=True)) as progress:
        (folder / "images").mkdir()
        (folder / "annotations").mkdir()
        task = progress.add_task("rendering", total=count)
        work = partial(write_scene, folder=folder, seed=seed, defect_share=defect_share)
        if workers == 1:
            keep_memory()
            for index in range(count):
                written.append(work(index))
                progress.advance(task)
        else:
            with ProcessPoolExecutor(workers, initializer=keep_memory) as pool:
                for item in pool.map(work, range(count), chunksize=4):
                    written.append(item)
                    progress.advance(task)
    return written


def contact_sheet(folder: Path, images: Sequence[WrittenScene]) -> Image.Image:
    """Draw the first images side by side with their boxes: strings in yellow, defects in red."""
    shown = list(islice(images, _SHEET_IMAGES))
    rows = -(-len(shown) // _SHEET_COLUMNS)
    sheet = Image.new("RGB", (_SHEET_COLUMNS * _SHEET_CELL, rows * _SHEET_CELL), (24, 24, 24))
    for place, item in enumerate(shown):
        with Image.open(folder / "images" / f"{item.name}.jpg") as file:
            image = file.convert("RGB")
        draw = ImageDraw.Draw(image)
        for label, (x1, y1, x2, y2) in item.objects:
            draw.rectangle((x1, y1, x2 - 1, y2 - 1), outline="yellow" if label == STRING else "red", width=2)
        image.thumbnail((_SHEET_CELL - 6, _SHEET_CELL - 20))
        row, column = divmod(place, _SHEET_COLUMNS)
        corner = (column * _SHEET_CELL, row * _SHEET_CELL)
        labels = [label for label, _ in item.objects if label != STRING]
        ImageDraw.Draw(sheet).text((corner[0] + 3, corner[1] + 2), ", ".join(labels) or "no defect")
        sheet.paste(image, (corner[0] + 3, corner[1] + 17))
    return sheet


def run(args: argparse.Namespace) -> int:
    """Render as `args` say, which are those of `command_lines.parse_scenes`."""
    written = write_scenes(
        args.output, args.count, args.seed, workers=args.workers, defect_share=args.defect_share
    )
    if args.contact_sheet:
        with atomic_path(args.contact_sheet) as temporary:
            contact_sheet(args.output, written).save(temporary, format="PNG")
    defective = sum(any(label != STRING for label, _ in item.objects) for item in written)
    print(f"{len(written)} pictures ({defective} with a defect) in {args.output}")
    return 0

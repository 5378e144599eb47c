"""Small annotated photos for tests of the commands that read them."""

import hashlib
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

KINDS = ("missing disc", "broken disc", "flashover", "pollution", "bird nest")
Boxes = list[tuple[str, tuple[int, int, int, int]]]


def write_pair(folder: Path, name: str, boxes: Boxes, seed: int, size: tuple[int, int] = (80, 48)) -> None:
    """Write an image and its VOC file to `folder`.

    Args:
        folder: Gets folders `images` and `annotations`.
        name: Of both files.
        boxes: (class, corners in pixels) of its objects.
        seed: Of its pixels.
        size: Its (width, height).
    """
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 10, 3), dtype=np.uint8)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "annotations").mkdir(exist_ok=True)
    Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR).save(folder / "images" / f"{name}.jpg")
    shapes = "".join(
        f"<object><name>{kind}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax>"
        f"<ymax>{y2}</ymax></bndbox></object>"
        for kind, (x1, y1, x2, y2) in boxes
    )
    (folder / "annotations" / f"{name}.xml").write_text(
        f"<annotation><filename>{name}</filename><size><width>{size[0]}</width><height>{size[1]}</height>"
        f"</size>{shapes}</annotation>"
    )


def write_photos(folder: Path, count: int = 60, seed: int = 0) -> Path:
    """Write images of which every third is sound; file names give the answer away, as real ones do."""
    rng = random.Random(seed)
    for index in range(count):
        kind = KINDS[index % 5] if index % 3 else None
        boxes: Boxes = [("insulator", (5, 5, 75, 43))]
        if kind:
            x, y = rng.randrange(6, 60), rng.randrange(6, 30)
            boxes.append((kind, (x, y, x + 9, y + 7)))
        name = f"{(kind or 'sound').replace(' ', '_')}_{index:03d}"
        write_pair(folder, name, boxes, seed=1000 * seed + index)
    return folder


def write_boxes(folder: Path, *photos: Boxes, count: int = 18, size: tuple[int, int] = (80, 48)) -> Path:
    """Write `count` images of `size` with the boxes of each of `photos` in turn."""
    for number in range(count):
        write_pair(folder, f"p{number:02d}", photos[number % len(photos)], number, size)
    return folder


def contents(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file below a folder, by its path there."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


needs_bytes_as_names = pytest.mark.skipif(
    sys.platform in ("win32", "darwin"), reason="file names are Unicode there"
)

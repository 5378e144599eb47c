"""Schema of synthetic.json: COCO annotations of made pictures, with what each was made of and how.

The folder beside it holds images/ and masks/. COCO readers read it as it is; `convert --synthetic` reads the
facts too, since a made picture must never be tested on, and goes where its parents went.
"""

from __future__ import annotations

import re
from io import BytesIO
from typing import Any, Final, Literal

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydantic import BaseModel, ConfigDict, Field

from llava.common.boxes import Box
from llava.common.masks import Pixels

SYNTHETIC_FILE = "synthetic.json"
SYNTHETIC_FORMAT: Final = "llava-inspect synthetic"
IMAGES, MASKS = "images", "masks"
PROMPT: Final = "a photo of {wish}, {keywords}, sharp focus, natural light"
"""What a picture is painted by where nothing else is said."""
PNG_LEVEL: Final = 3
"""Of compression: takes half of the default's time, and 1% more bytes."""
MADE_BY: Final = "not a photograph: a defect or a background was made by LLaVA Inspect"
"""Stands in the file of each made picture, wherever it is copied to."""
Method = Literal["paste", "render", "diffuse"]


_NOT_WORD = re.compile(r"\W+")  # what file names had better not hold
_NAMED = 60  # characters of a kind in a file's name, which has 255 bytes at most


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Parent(_Part):
    """A photo that pixels of a made picture come from: its path below the source, and its file's SHA-256."""

    name: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Facts(_Part):
    """How a picture was made. `parents`: the photo that was changed first, then the donors.

    `kind` is the recipe's class of what was made; None where only the background is new. `mask` names the
    file of the pixels that may have changed. `prompt` and `seed` are those of the method, which may say more
    in `details`. `adds_labels`: the file has no labels of what the photo shows besides, because who made the
    picture did not know them; `convert` adds those of the first parent.
    """

    parents: list[Parent] = Field(min_length=1)
    method: Method
    kind: str | None = None
    mask: str
    seed: int
    prompt: str | None = None
    details: dict[str, Any] = Field(default_factory=dict)
    adds_labels: bool = False


class MadeImage(_Part):
    """An entry of COCO's `images`, with its facts. `file_name` is below the folder of synthetic.json."""

    id: int
    file_name: str
    width: int
    height: int
    synthetic: Facts


class MadeAnnotation(_Part):
    """An entry of COCO's `annotations`; `made` tells what was made from what the photo showed before.

    `bbox` is (x, y, width, height) in pixels. `segmentation` is the run lengths of what was made, and empty
    for what was there, of which a box is all that is known.
    """

    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float
    segmentation: dict[str, Any] | list[list[float]] = Field(default_factory=list)
    iscrowd: Literal[0] = 0
    made: bool

    @property
    def box(self) -> Box:
        """Return the box as (x1, y1, x2, y2)."""
        x, y, width, height = self.bbox
        return x, y, x + width, y + height


class Category(_Part):
    id: int
    name: str


class Info(_Part):
    """What made the pictures. `rejected` counts the jobs that gave none, by reason."""

    format: Literal["llava-inspect synthetic"] = SYNTHETIC_FORMAT
    version: Literal[1] = 1
    method: Method
    recipe: str
    seed: int
    settings: dict[str, Any] = Field(default_factory=dict)
    rejected: dict[str, int] = Field(default_factory=dict)


class SyntheticFile(_Part):
    """The file."""

    info: Info
    images: list[MadeImage]
    annotations: list[MadeAnnotation]
    categories: list[Category]

    def made_by_name(self) -> dict[str, Facts]:
        """Return the facts of each picture by its `file_name`."""
        return {image.file_name: image.synthetic for image in self.images}


def picture_name(number: int, kind: str | None) -> str:
    """Return what the file of a made picture is called, and that of its mask; `kind` is None for a new
    background."""
    return f"{number:05d}_{_NOT_WORD.sub('_', kind or 'background')[:_NAMED]}.png"


def to_bbox(box: Box) -> Box:
    """Return COCO's (x, y, width, height) of (x1, y1, x2, y2)."""
    x1, y1, x2, y2 = box
    return x1, y1, x2 - x1, y2 - y1


def picture_bytes(pixels: Pixels) -> bytes:
    """Return a made picture (height, width, 3) as a PNG file that says so (its text Description)."""
    text = PngInfo()
    text.add_text("Description", MADE_BY)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=PNG_LEVEL, pnginfo=text)
    return buffer.getvalue()

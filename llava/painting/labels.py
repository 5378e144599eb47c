"""Labels of what was cut out or painted by hand, as files that `convert` reads.

Painted pictures go into a folder such as `synthesize` writes (`convert --synthetic`); an outline on a photo
goes into LabelMe's form, beside the photo.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import numpy as np
from PIL import Image

from llava.common.boxes import Box
from llava.common.errors import InputError
from llava.common.files import to_json
from llava.common.masks import Mask, Pixels, box_of, changed_pixels, clean_mask, run_lengths
from llava.common.synthetic import (
    IMAGES,
    MASKS,
    PNG_LEVEL,
    SYNTHETIC_FILE,
    Category,
    Facts,
    Info,
    MadeAnnotation,
    MadeImage,
    Parent,
    SyntheticFile,
    picture_bytes,
    picture_name,
    to_bbox,
)
from llava.painting.diffusion import Wish

LABELME_VERSION = "5.5.0"
"""Of LabelMe, whose form it is; it has masks since 5.2."""
_FOLDER = "made"


@dataclass(frozen=True)
class MadeFiles:
    """A painted picture as files: PNGs of it and of the mask, its facts, and the label of what changed.

    `label` is None where only the background is new. The kind is given by `of_kind`, names and ids when all
    are put together.
    """

    picture: bytes
    mask: bytes
    size: tuple[int, int]
    facts: Facts
    label: MadeAnnotation | None

    @property
    def byte_count(self) -> int:
        """How large the files are."""
        return len(self.picture) + len(self.mask)

    def of_kind(self, kind: str) -> MadeFiles:
        """Return the files with the class of what was painted; a new background has none."""
        if self.label is None:
            return self
        return replace(self, facts=self.facts.model_copy(update={"kind": kind}))


def make_files(wish: Wish, result: Pixels, photo: Parent, details: dict[str, Any]) -> MadeFiles:
    """Return a painted picture as files, of no kind yet.

    Args:
        wish: What was painted.
        result: The picture.
        photo: The file that the wish's pixels are of.
        details: How it was painted.

    Raises:
        InputError: No pixel differs from the photo's by what can be seen.
    """
    changed = clean_mask(changed_pixels(wish.pixels, result))
    if not changed.any():
        raise InputError("nothing changed: paint it again with another seed, or other words")
    height, width = changed.shape
    facts = Facts(
        parents=[photo], method="diffuse", mask="", seed=wish.seed, prompt=wish.prompt, details=details,
        adds_labels=True,
    )  # fmt: skip
    return MadeFiles(
        picture=picture_bytes(result),
        mask=png(wish.painted.astype(np.uint8) * 255),
        size=(width, height),
        facts=facts,
        label=None if wish.invert else _label(changed),
    )


def made_zip(pictures: Sequence[MadeFiles]) -> bytes:
    """Return a zip of a folder with pictures, masks and synthetic.json."""
    kinds = dict.fromkeys(made.facts.kind for made in pictures if made.facts.kind)
    numbers = {kind: number for number, kind in enumerate(kinds, start=1)}
    images: list[MadeImage] = []
    annotations: list[MadeAnnotation] = []
    buffer = BytesIO()
    with ZipFile(buffer, "w", ZIP_STORED) as archive:  # a PNG is compressed already
        for number, made in enumerate(pictures, start=1):
            name = picture_name(number, made.facts.kind)
            archive.writestr(f"{_FOLDER}/{IMAGES}/{name}", made.picture)
            archive.writestr(f"{_FOLDER}/{MASKS}/{name}", made.mask)
            width, height = made.size
            images.append(
                MadeImage(
                    id=number,
                    file_name=f"{IMAGES}/{name}",
                    width=width,
                    height=height,
                    synthetic=made.facts.model_copy(update={"mask": f"{MASKS}/{name}"}),
                )
            )
            if made.label and made.facts.kind:
                ids = {"image_id": number, "category_id": numbers[made.facts.kind]}
                annotations.append(made.label.model_copy(update=ids | {"id": len(annotations) + 1}))
        content = SyntheticFile(
            info=Info(method="diffuse", recipe="none: painted on the web page", seed=0),
            images=images,
            annotations=annotations,
            categories=[Category(id=number, name=kind) for kind, number in numbers.items()],
        )
        archive.writestr(f"{_FOLDER}/{SYNTHETIC_FILE}", to_json(content))
    return buffer.getvalue()


def _label(changed: Mask) -> MadeAnnotation:
    return MadeAnnotation(
        id=0,
        image_id=0,
        category_id=0,
        bbox=to_bbox(_box(changed)),
        area=float(np.count_nonzero(changed)),
        segmentation={"size": list(changed.shape), "counts": run_lengths(changed)},
        made=True,
    )


def labelme_file(name: str, size: tuple[int, int], shapes: Sequence[dict[str, Any]]) -> str:
    """Return LabelMe's JSON for a photo.

    Args:
        name: Of the photo's file.
        size: Its (width, height), upright.
        shapes: Of each thing that it shows (`labelme_shape`).
    """
    return to_json(
        {
            "version": LABELME_VERSION,
            "flags": {},
            "shapes": list(shapes),
            "imagePath": name,
            "imageData": None,
            "imageHeight": size[1],
            "imageWidth": size[0],
        }
    )


def labelme_shape(label: str, mask: Mask) -> dict[str, Any]:
    """Return a thing of a class in LabelMe's form: the part of its mask, which is not empty, in its box. The
    points are the first and last pixels of that."""
    x1, y1, x2, y2 = map(int, _box(mask))
    part = png(mask[y1:y2, x1:x2].astype(np.uint8))
    return {
        "label": label,
        "points": [[x1, y1], [x2 - 1, y2 - 1]],
        "group_id": None,
        "description": "",
        "shape_type": "mask",
        "flags": {},
        "mask": base64.b64encode(part).decode(),
    }


def _box(mask: Mask) -> Box:
    box = box_of(mask)
    assert box is not None
    return box


def png(pixels: Any) -> bytes:
    """Return a mask (height, width) as a PNG file."""
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=PNG_LEVEL)
    return buffer.getvalue()

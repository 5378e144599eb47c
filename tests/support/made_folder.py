"""A folder of made pictures, as `llava-inspect synthesize` writes it, for tests of what reads it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from llava.common.boxes import Box
from llava.common.files import sha256, write_json
from llava.common.masks import box_mask, save_mask
from llava.common.synthetic import (
    SYNTHETIC_FILE,
    Category,
    Facts,
    Info,
    MadeAnnotation,
    MadeImage,
    Method,
    Parent,
    SyntheticFile,
)

COMPONENT = ("insulator", (5.0, 5.0, 75.0, 43.0))


@dataclass(frozen=True)
class Made:
    """A picture to write: `photo` with a defect of `kind` at `box`, made of pixels of `donors` too.

    Of one that `adds_labels` the mask is written, too.
    """

    photo: Path
    kind: str | None = "broken disc"
    donors: Sequence[Path] = ()
    box: Box = (20.0, 12.0, 32.0, 22.0)
    method: Method = "paste"
    adds_labels: bool = False


def write_made(folder: Path, pictures: Sequence[Made], component: tuple[str, Box] | None = COMPONENT) -> Path:
    """Write the pictures with their facts; each shows `component` beside what was made."""
    (folder / "images").mkdir(parents=True)
    kinds = sorted({made.kind for made in pictures if made.kind})
    names = [*([component[0]] if component else []), *kinds]
    images, annotations = [], []
    for number, made in enumerate(pictures):
        name = f"images/{number:05d}_{(made.kind or 'background').replace(' ', '_')}.png"
        pixels = np.array(Image.open(made.photo).convert("RGB"))
        x1, y1, x2, y2 = map(int, made.box)
        pixels[y1:y2, x1:x2] = np.random.default_rng(number).integers(0, 256, 3, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
        facts = Facts(
            parents=[Parent(name=path.name, sha256=sha256(path)) for path in (made.photo, *made.donors)],
            method=made.method,
            kind=made.kind,
            mask=f"masks/{number:05d}.png",
            seed=number,
            adds_labels=made.adds_labels,
        )
        if made.adds_labels:
            (folder / "masks").mkdir(exist_ok=True)
            save_mask(folder / facts.mask, box_mask(made.box, pixels.shape[:2]))
        images.append(
            MadeImage(
                id=number,
                file_name=name,
                width=pixels.shape[1],
                height=pixels.shape[0],
                synthetic=facts,
            )
        )
        for kind, box, is_made in (
            *([(*component, False)] if component else []),
            *([(made.kind, made.box, True)] if made.kind else []),
        ):
            x1, y1, x2, y2 = box
            annotations.append(
                MadeAnnotation(
                    id=len(annotations),
                    image_id=number,
                    category_id=names.index(kind),
                    bbox=(x1, y1, x2 - x1, y2 - y1),
                    area=(x2 - x1) * (y2 - y1),
                    made=is_made,
                )
            )
    content = SyntheticFile(
        info=Info(method="paste", recipe="insulator", seed=0),
        images=images,
        annotations=annotations,
        categories=[Category(id=number, name=name) for number, name in enumerate(names)],
    )
    write_json(folder / SYNTHETIC_FILE, content)
    return folder

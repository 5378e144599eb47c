"""Augmentations that keep a picture and what is said of it in agreement.

A flip moves places: "left" becomes "right" and boxes turn. Whether a sentence speaks of places in the
picture cannot be told from its words alone ("Is that right?"), so a record with such words is turned
only where its `meta` vouches for it; otherwise its picture is not flipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from llava.common.boxes import Box, format_box, parse_boxes
from llava.common.records import Record
from llava.conversation import Speaker
from llava.train.config import AugmentSettings

Turns = tuple[tuple[Speaker, str], ...]

_HORIZONTAL = {"left": "right"}
_VERTICAL = {"top": "bottom", "upper": "lower", "above": "below", "uppermost": "lowermost"}
_OPPOSITE = {
    axis: {**pairs, **{second: first for first, second in pairs.items()}}
    for axis, pairs in (("horizontal", _HORIZONTAL), ("vertical", _VERTICAL))
}
_DIRECTION = re.compile(
    rf"\b({'|'.join([*_OPPOSITE['horizontal'], *_OPPOSITE['vertical']])}|clockwise|anticlockwise)\b",
    re.IGNORECASE,
)
_BOX_TEXT = re.compile(r"\[[^\[\]]*\]")


@dataclass(frozen=True)
class Augmentation:
    """The augmentation drawn for one image. `shrink` is (scale, x, y), the position as a share of the free
    room; `brightness` and `contrast` are factors."""

    horizontal: bool = False
    vertical: bool = False
    brightness: float = 1.0
    contrast: float = 1.0
    shrink: tuple[float, float, float] = (1.0, 0.0, 0.0)

    @property
    def flips(self) -> bool:
        return self.horizontal or self.vertical


def draw_augmentation(
    settings: AugmentSettings, records: Iterable[Record], rng: np.random.Generator
) -> Augmentation:
    """Draw the augmentation of an image that all `records` are about. It takes the same numbers from `rng`
    whatever the records say."""
    flips, jitter, shrink = rng.random(2), rng.uniform(-1, 1, 2), rng.random(3)
    places = [record for record in records if mentions_places(record)]
    flippable = all(may_flip(record) for record in places)
    return Augmentation(
        horizontal=flippable and bool(flips[0] < settings.flip_horizontal),
        vertical=flippable and bool(flips[1] < settings.flip_vertical),
        brightness=1 + settings.brightness * float(jitter[0]),
        contrast=1 + settings.contrast * float(jitter[1]),
        shrink=(
            1.0 if places else 1 - settings.shrink * float(shrink[0]),
            float(shrink[1]),
            float(shrink[2]),
        ),
    )


def mentions_places(record: Record) -> bool:
    """Tell whether the record holds boxes or words of direction, or is in a language whose words of direction
    are not known here."""
    if record.meta.get("language", "en") != "en":
        return True
    return any(
        _DIRECTION.search(turn.value) is not None or bool(parse_boxes(turn.value))
        for turn in record.conversations
    )


def may_flip(record: Record) -> bool:
    """Tell whether the record's words of direction and boxes are known to be about its image."""
    meta = record.meta
    if meta.get("language", "en") != "en" or len(record.images) != 1:
        return False
    if "flip" in meta:
        return bool(meta["flip"])
    return meta.get("task") == "where" or meta.get("type") == "box"


def flip_text(text: str, augmentation: Augmentation) -> str:
    """Rewrite `text` for the flipped image: directions and boxes change, boxes keep their decimals."""
    for axis in ("horizontal", "vertical"):
        if getattr(augmentation, axis):
            text = _swap_words(text, _OPPOSITE[axis])
    return _BOX_TEXT.sub(lambda match: _flip_box(match.group(), augmentation), text)


def _swap_words(text: str, opposite: dict[str, str]) -> str:
    def swap(match: re.Match[str]) -> str:
        word = match.group()
        other = opposite[word.lower()]
        return other.upper() if word.isupper() else other.capitalize() if word[0].isupper() else other

    return re.sub(rf"\b({'|'.join(opposite)})\b", swap, text, flags=re.IGNORECASE)


def _flip_box(text: str, augmentation: Augmentation) -> str:
    boxes = parse_boxes(text)
    if not boxes:
        return text
    x1, y1, x2, y2 = boxes[0]
    if augmentation.horizontal:
        x1, x2 = 1 - x2, 1 - x1
    if augmentation.vertical:
        y1, y2 = 1 - y2, 1 - y1
    turned: Box = (x1, y1, x2, y2)
    decimals = len(text.split(",")[0].partition(".")[2].strip())
    return format_box(turned, decimals)


def augment_image(
    image: Image.Image, augmentation: Augmentation, colour: tuple[int, int, int]
) -> Image.Image:
    """Apply the augmentation to an RGB image; the size stays, `colour` fills what shrinking leaves free."""
    if augmentation.horizontal:
        image = ImageOps.mirror(image)
    if augmentation.vertical:
        image = ImageOps.flip(image)
    if augmentation.brightness != 1 or augmentation.contrast != 1:
        values = np.asarray(image, dtype=np.float32)
        grey = values.mean()
        values = ((values - grey) * augmentation.contrast + grey) * augmentation.brightness
        image = Image.fromarray(values.round().clip(0, 255).astype(np.uint8))
    scale, across, down = augmentation.shrink
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in image.size)
        left, top = round((image.width - width) * across), round((image.height - height) * down)
        small = image.resize((width, height), Image.Resampling.BICUBIC)
        image = Image.new("RGB", image.size, colour)
        image.paste(small, (left, top))
    return image

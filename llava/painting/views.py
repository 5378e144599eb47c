"""What things are cut out of pictures with: clicks and boxes in, segments out."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from llava.common.boxes import Box, intersection
from llava.common.errors import InputError
from llava.common.masks import Mask, Pixels


class Click(NamedTuple):
    """A point in a picture's pixels, on the thing that is meant (`inside`) or on what is not part of it."""

    x: float
    y: float
    inside: bool = True


@dataclass(frozen=True)
class Segment:
    """A mask (height, width) of a thing, without holes and specks.

    `iou` is the overlap with the true mask that the model expects, None where there is no model.
    """

    mask: Mask
    iou: float | None


class View(ABC):
    """A picture that was looked at once and can be asked for many segments."""

    def __init__(self, size: tuple[int, int]) -> None:
        """Take the picture's (height, width)."""
        self.size = size

    def at_clicks(self, prompts: Sequence[Sequence[Click]]) -> list[Segment]:
        """Return the segment of each prompt, which is one or more clicks about the same thing.

        Raises:
            InputError: A prompt has no click on the thing, a click is outside the picture, or there is no
                model that understands clicks.
        """
        height, width = self.size
        for clicks in prompts:
            if not any(click.inside for click in clicks):
                raise InputError("no click on the thing to cut out; click on it at least once")
            for click in clicks:
                if not (0 <= click.x <= width and 0 <= click.y <= height):
                    raise InputError(
                        f"click ({click.x:g}, {click.y:g}): outside the {width} x {height} picture"
                    )
        return self._at_clicks(prompts)

    def in_boxes(self, boxes: Sequence[Box]) -> list[Segment]:
        """Return the segment of the thing that each box (in pixels) is drawn around.

        Raises:
            InputError: A box has no area in the picture.
        """
        height, width = self.size
        for box in boxes:
            if not all(map(math.isfinite, box)) or not intersection(box, (0, 0, width, height)):
                shown = ", ".join(f"{value:g}" for value in box)
                raise InputError(f"box [{shown}]: nothing of the {width} x {height} picture is in it")
        return self._in_boxes(boxes)

    @abstractmethod
    def _at_clicks(self, prompts: Sequence[Sequence[Click]]) -> list[Segment]: ...

    @abstractmethod
    def _in_boxes(self, boxes: Sequence[Box]) -> list[Segment]: ...


class Segmenter(Protocol):
    """Looks at pictures."""

    def look(self, pixels: Pixels) -> View:
        """Look at a picture (height, width, 3) once, for many prompts."""

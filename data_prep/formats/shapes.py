"""Collect the shapes that a file gives for one image, and the notes on those not taken as written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

from data_prep.annotations import Shape
from data_prep.formats.outlines import bounding_box
from llava.common.boxes import area
from llava.common.html.markup import readable

UNNAMED = "object"  # what shapes are called in files that name no class at all


def join(parts: Sequence[Shape]) -> Shape:
    """Return the object that parts of one class make: the box around them, and the area that they cover if
    none lies over another."""
    if len(parts) == 1:
        return parts[0]
    corners = [corner for part in parts for corner in (part.box[:2], part.box[2:])]
    box = bounding_box(corners)
    covered = sum(area(part.box) if part.area is None else part.area for part in parts)
    return Shape(parts[0].name, box, min(covered, area(box)))


class ShapeCollector:
    """A list of shapes that holds each only once, with notes on what was corrected or left out.

    A reader makes one for each image. A `place` tells which shape of the file a note is about and begins its
    sentence: `a.xml: box 3 (insulator)`, or `a.txt, line 3:` with a colon.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._shapes: dict[Shape, None] = {}  # ordered, and quick to look up
        self._left_out: Counter[str] = Counter()

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return tuple(self._shapes)

    def add(self, shape: Shape, place: str) -> None:
        """Add a shape; one that equals an earlier shape in all its facts is noted instead."""
        if shape in self._shapes:
            self.note(f"{place} is there twice; kept once")
        else:
            self._shapes[shape] = None

    def add_parts(self, parts: Iterable[tuple[Shape, str, Hashable]]) -> int:
        """Add shapes of which some are parts of one object.

        Args:
            parts: Each a shape, its place, and what the parts of its object share beside the class name; None
                for a shape that is an object by itself.

        Returns:
            How many objects were joined of several parts.
        """
        objects: dict[Hashable, tuple[dict[Shape, None], str]] = {}
        for position, (shape, place, shared) in enumerate(parts):
            key = (position,) if shared is None else (shape.name, shared)
            if key in objects and shape in objects[key][0]:
                self.note(f"{place} is there twice; kept once")
            objects.setdefault(key, ({}, place))[0][shape] = None
        for shapes, place in objects.values():
            self.add(join(list(shapes)), place)
        return sum(len(shapes) > 1 for shapes, _ in objects.values())

    def add_unless_empty(self, shape: Shape, place: str) -> None:
        """Add a shape; one without width or height is left out with a note."""
        x1, y1, x2, y2 = shape.box
        if x1 < x2 and y1 < y2:
            self.add(shape, place)
        else:
            self.note(f"{place} the box has no width or no height; left out")

    def note(self, text: str) -> None:
        self.notes.append(text)

    def leave_out(self, kind: str) -> None:
        """Count a shape of some kind (`polyline`, `empty mask`) that is left out."""
        self._left_out[kind] += 1

    def note_left_out(self, sentence: str) -> None:
        """Note how many shapes of which kinds were left out, after the words of `sentence`; nothing if
        there were none."""
        if self._left_out:
            listed = ", ".join(f"{count} {kind}" for kind, count in sorted(self._left_out.items()))
            self.note(f"{sentence}: {readable(listed)}")

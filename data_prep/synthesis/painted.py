"""What passes between the steps of making pictures: photos, jobs, and what painters make of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from data_prep.annotations import Shape
from llava.common.boxes import Box, area, holds_centre
from llava.common.images import open_image
from llava.common.masks import Mask, Pixels
from llava.common.synthetic import Method, Parent

Outline = Callable[[Pixels, Box], Mask | None]
"""Gives the mask of the thing that a box of a picture is drawn around, None where it finds none. Nothing of
it lies outside the box."""


@dataclass(frozen=True)
class Photo:
    """An annotated photo that may be changed, or give a defect.

    `name` is its path below the source and `sha256` that of its file. Boxes are in pixels of the upright
    photo, with the names of the recipe; `size` is its (width, height). Pixels are read when asked for.
    """

    file: Path
    name: str
    sha256: str
    size: tuple[int, int]
    components: tuple[Shape, ...]
    defects: tuple[Shape, ...]

    @property
    def parent(self) -> Parent:
        return Parent(name=self.name, sha256=self.sha256)

    def pixels(self) -> Pixels:
        """Decode the photo: (height, width, 3), upright RGB. InputError where it is damaged."""
        return np.asarray(open_image(self.file))

    def component_of(self, defect: Shape) -> Shape | None:
        """Return the smallest component that holds the defect's centre, None where none does."""
        around = [shape for shape in self.components if holds_centre(shape.box, defect.box)]
        return min(around, key=lambda shape: area(shape.box), default=None)

    def defects_on(self, component: Shape) -> list[Shape]:
        """Return the defects that lie on a component, and on no smaller one."""
        return [defect for defect in self.defects if self.component_of(defect) == component]

    def sound_components(self) -> list[Shape]:
        """Return the components that no defect touches the centre of or has its own centre in."""
        return [
            shape
            for shape in self.components
            if not any(
                holds_centre(shape.box, defect.box) or holds_centre(defect.box, shape.box)
                for defect in self.defects
            )
        ]


@dataclass(frozen=True)
class Job:
    """One picture to make: a defect of `kind` on the photo, within `target`.

    `number` counts from 0 and names the files; `seed` is the job's own. `target` is the component to change,
    None for a photo without components: anywhere in it. A job of no kind keeps its target as it is, with the
    defects on it, and changes all around.
    """

    number: int
    photo: Photo
    kind: str | None
    target: Shape | None
    seed: int


@dataclass(frozen=True)
class Painted:
    """A picture that was made. `pixels` are the photo's, changed only where `mask` is True.

    `donors` are further photos that pixels come from. `prompt` and `details` go to its facts.
    """

    pixels: Pixels
    mask: Mask
    donors: tuple[Photo, ...] = ()
    prompt: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rejected:
    """A job that gave no picture, and why: a phrase that is counted, such as `no donor of that kind`."""

    reason: str


class Painter(Protocol):
    """A method of making defects. The same jobs give the same pictures, whatever the batches."""

    method: Method
    batch_size: int

    def can_make(self, kind: str) -> str | None:
        """Return why it cannot make a kind of defect at all, None where it can."""
        ...

    def paint(self, jobs: Sequence[Job]) -> Sequence[Painted | Rejected]:
        """Make the pictures of some jobs, in their order."""
        ...

"""What a visitor cuts out of a photo and has painted: clicks, the mask that they give, pictures, labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llava.common.boxes import Box
from llava.common.errors import InputError
from llava.common.masks import Mask, Pixels
from llava.painting.labels import MadeFiles, labelme_file, labelme_shape, made_zip
from llava.painting.views import Click, View
from llava.serve.page.outline import outline
from llava.serve.page.pictures import Upload

PHOTO, RESULT, OFFERED = "make", "make-result", "make-offered"
"""Places of a visitor's photo, pictures and download."""
MOST_KEPT_MIB = 256
"""Of the pictures that a visitor keeps: they are in memory, and once more as a zip."""


@dataclass(frozen=True)
class Labelled:
    """A thing that a photo's labels have: its class, its outline as the path of an SVG, and its shape in
    LabelMe's form. Its mask is not kept, since it has the photo's size."""

    name: str
    outline: str
    shape: dict[str, Any]


class Making:
    """A photo that was looked at, and what is made of it.

    A mask comes of clicks on the thing and beside it, or of two that are corners of a box around it, where
    the view understands no others.
    """

    def __init__(self, photo: Upload, pixels: Pixels, view: View, *, takes_clicks: bool) -> None:
        """Begin without clicks.

        Args:
            photo: The photo.
            pixels: Its pixels (height, width, 3).
            view: What cuts things out of it.
            takes_clicks: Whether the view understands clicks.
        """
        self.photo = photo
        self.pixels = pixels
        self.clicks: list[Click] = []
        self.mask: Mask | None = None
        self.labelled: list[Labelled] = []
        """What the photo's labels have."""
        self.turn = 0
        """How many clicks there were, those too that gave nothing."""
        self._view = view
        self._takes_clicks = takes_clicks

    @property
    def box(self) -> Box | None:
        """The box that two clicks make, None where there are not two, or clicks mean something else."""
        if self._takes_clicks or len(self.clicks) != 2:
            return None
        (x1, y1, _), (x2, y2, _) = self.clicks
        return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)

    def click(self, x: float, y: float, inside: bool = True) -> None:
        """Take a click at a place of the photo, in pixels.

        Raises:
            InputError: Nothing can be cut out by it; it is as if it had not been.
        """
        self.turn += 1
        before = self.clicks
        begins_box = not self._takes_clicks and len(before) == 2
        self.clicks = [*([] if begins_box else before), Click(x, y, inside)]
        try:
            self._cut()
        except Exception:
            self.clicks = before
            raise

    def undo(self) -> None:
        """Take the last click back."""
        self.clicks = self.clicks[:-1]
        self._cut()

    def clear(self) -> None:
        """Take all clicks back."""
        self.clicks, self.mask = [], None

    def _cut(self) -> None:
        mask = None
        if self._takes_clicks and self.clicks:
            mask = self._view.at_clicks([self.clicks])[0].mask
        elif self.box is not None:
            mask = self._view.in_boxes([self.box])[0].mask
        if mask is not None and not mask.any():
            raise InputError("nothing was found there; click on another place of the thing")
        self.mask = mask

    def label(self, name: str) -> None:
        """Label what is cut out.

        Raises:
            InputError: Nothing is cut out, or it has no name.
        """
        if self.mask is None or not name.strip():
            raise InputError("cut something out and name it first")
        name = name.strip()
        self.labelled.append(Labelled(name, outline(self.mask), labelme_shape(name, self.mask)))
        self.clear()

    def unlabel(self) -> None:
        """Take the last label back."""
        self.labelled = self.labelled[:-1]

    @property
    def labels(self) -> str:
        """The labels so far as LabelMe's JSON."""
        shapes = [thing.shape for thing in self.labelled]
        return labelme_file(self.photo.name, self.photo.image.size, shapes)


class KeptPictures:
    """The painted pictures that a visitor keeps, until the tab is closed."""

    def __init__(self) -> None:
        """Start empty. `last` is the one that was painted last, which may be kept."""
        self.last: MadeFiles | None = None
        self.pictures: list[MadeFiles] = []

    def keep(self, kind: str) -> bytes:
        """Keep the last picture; returns all as a zip.

        Args:
            kind: The class of what was painted; not used where the background is new.

        Raises:
            InputError: There is none, or there is no room for more.
        """
        if self.last is None:
            raise InputError("there is no picture to keep; paint one first")
        if sum(made.byte_count for made in (*self.pictures, self.last)) > MOST_KEPT_MIB * 2**20:
            raise InputError(
                f"the pictures that you keep have over {MOST_KEPT_MIB} MiB; download them and reload the page"
            )
        self.pictures.append(self.last.of_kind(kind))
        self.last = None
        return made_zip(self.pictures)

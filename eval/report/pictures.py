"""What pages of pictures are made of: embedded images with boxes on them, and a filter over cards of them.

report.js enlarges a picture that is clicked, and hides cards and questions that do not match the filter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.scoring.schema import Corners
from llava.common.errors import InputError
from llava.common.html.markup import Markup, cut, tag
from llava.common.html.page import thumbnail
from llava.common.remote import RemoteFile

SIDE, QUALITY = 640, 72  # of an embedded JPEG
_BOX_NAMES = {
    "truth": "true box",
    "tuned": "box of tuned",
    "base": "box of base",
    "asked": "box that the question names",
}


@dataclass(frozen=True)
class DrawnBox:
    """A box in 0..1 of the image, in the style of a CSS class; `title` is shown where the mouse rests."""

    css_class: str
    corners: Corners
    title: str


class EmbeddedImages:
    """The images that the page embeds, each once, however many cards show it."""

    def __init__(self, find: Callable[[str], Path | RemoteFile]):
        """Set up; `find` returns the file that a name means, or raises InputError."""
        self._find = find
        self.bytes = 0
        self._data_uris: dict[str, str] = {}

    def data_uri(self, name: str) -> str:
        """Return a data URI, or "" for an image that is absent or unreadable."""
        if name not in self._data_uris:
            try:
                self._data_uris[name] = thumbnail(self._find(name), SIDE, QUALITY)
            except InputError:
                self._data_uris[name] = ""
            self.bytes += len(self._data_uris[name])
        return self._data_uris[name]


def picture(data: str, alt: str, boxes: Sequence[DrawnBox], pins: Sequence[Markup] = ()) -> Markup:
    """Return an image with boxes, and `pins` on both; a dark rim keeps a box visible on a bright image."""
    rectangles: list[Markup] = []
    for box in boxes:
        x1, y1, x2, y2 = box.corners
        place = {"x": f"{x1:.4f}", "y": f"{y1:.4f}", "width": f"{x2 - x1:.4f}", "height": f"{y2 - y1:.4f}"}
        rectangles.append(tag("rect", class_="under", **place))
        rectangles.append(tag("rect", tag("title", box.title), class_=box.css_class, **place))
    drawing = (
        tag("svg", *rectangles, viewBox="0 0 1 1", preserveAspectRatio="none", aria_hidden="true")
        if rectangles
        else None
    )
    return tag("div", tag("img", src=data, alt=alt, loading="lazy"), drawing, *pins, class_="picture")


def box_legend(css_classes: Sequence[str], names: Mapping[str, str] = _BOX_NAMES) -> Markup | None:
    """Return what boxes of these classes are, None without any."""
    keys = [
        tag("span", tag("i", class_=f"frame {css_class}"), names[css_class], class_="key")
        for css_class in css_classes
    ]
    return tag("p", *keys, class_="keys boxes soft") if keys else None


def filter_form(selects: Mapping[str, tuple[str, Mapping[str, str]]]) -> Markup:
    """Return the form that report.js reads: a choice for each of task, state and label, and words to search.

    `selects` holds for each its heading and its options, the words of each by its value; one without options
    is not shown.
    """
    fields = [
        _select(heading, name, options) if options else tag("input", type="hidden", name=name)
        for name, (heading, options) in selects.items()
    ]
    words = tag("input", type="search", name="words", placeholder="in questions, answers, names")
    fields += [
        tag("label", "Words", words),
        tag("button", "Show all", type="reset"),
        tag("output", id="count", class_="soft", aria_live="polite"),
    ]
    return tag("form", *fields, id="filter", class_="filter", hidden="", aria_label="Filter the pictures")


def _select(label: str, name: str, options: Mapping[str, str]) -> Markup:
    made = [tag("option", cut(words, 60), value=value) for value, words in {"": "all", **options}.items()]
    return tag("label", label, tag("select", *made, name=name))

"""What `find_odd` found, as HTML: drawings over the photo and the strip that scale with the page."""

from __future__ import annotations

from collections.abc import Iterable

from llava.common.html.markup import Markup, tag, together
from llava.oddone import OddResult
from llava.oddone.result import Polygon
from llava.serve.page.words import Words

BAR_ROWS = 0.8
"""The height of the highest bar, in heights of the strip."""
NEIGHBOURS = 2
"""Units that are shown on each side of the odd one."""


def show_odd(found: OddResult, photo: str, strip: str | None, say: Words) -> Markup:
    """Return the verdict, the photo with its units, the strip with its scores, the odd one enlarged.

    Args:
        found: The result.
        photo: Address of the photo.
        strip: Address of the straightened string, None where there is none.
        say: The visitor's words.
    """
    return together(
        [
            tag("p", _verdict(found, say), role="status", class_="verdict"),
            *(tag("p", warning, class_="note") for warning in found.warnings),
            _photo(found, photo, say),
            _axes(found, say),
            None if strip is None else _strip(found, strip, say),
            None if strip is None or found.odd is None else _beside_neighbours(found, strip, say),
        ]
    )


def _verdict(found: OddResult, say: Words) -> str:
    if found.odd is None:
        return say("odd_none")
    key = "odd_sure" if found.odd.sure else "odd_unsure"
    return say(key, number=found.odd.index + 1, count=len(found.units), gap=f"{found.odd.gap:.1f}")


def _photo(found: OddResult, address: str, say: Words) -> Markup:
    """Return the photo with all axes and the units of the one that was taken."""
    width, height = found.size
    shapes = [
        tag("polyline", points=_points(axis.points), class_="axis", data_axis=number)
        for number, axis in enumerate(found.candidates)
        if axis is not found.axis
    ]
    for number, unit in enumerate(found.units):
        kind = "unit out" if unit.left_out else "unit"
        title = tag("title", say("unit", number=number + 1, score=f"{unit.score:.1f}"))
        shapes.append(tag("polygon", title, points=_points(unit.polygon), class_=kind))
    if found.odd is not None:
        shapes.append(tag("polygon", points=_points(found.odd.polygon), class_="unit odd"))
    return _svg(0, 0, width, height, [_image(address, width, height), *shapes], say("odd_photo"))


def _axes(found: OddResult, say: Words) -> Markup | None:
    """Return a button for each axis that the string may run along."""
    if len(found.candidates) < 2:
        return None
    buttons = [
        tag(
            "button", number + 1, type="button", data_axis=number,
            aria_pressed="true" if axis is found.axis else "false", aria_label=say("axis", number=number + 1),
        )
        for number, axis in enumerate(found.candidates)
    ]  # fmt: skip
    return tag("p", say("axes") + " ", *buttons, class_="axes")


def _strip(found: OddResult, address: str, say: Words) -> Markup:
    """Return the strip with its cuts, and a bar for each unit's score below."""
    height, width = found.strip.shape[:2]
    below = BAR_ROWS * height
    most = max((unit.score for unit in found.units if not unit.left_out), default=1.0) or 1.0
    shapes = [_image(address, width, height)]
    for cut in found.cuts:
        shapes.append(tag("line", x1=f"{cut:.1f}", y1=0, x2=f"{cut:.1f}", y2=height, class_="cut"))
    for index, (unit, left, right) in enumerate(
        zip(found.units, found.cuts[:-1], found.cuts[1:], strict=True)
    ):
        if unit.left_out:
            continue
        bar = below * max(unit.score, 0.0) / most
        kind = "bar odd" if found.odd is not None and index == found.odd.index else "bar"
        title = tag("title", say("unit", number=index + 1, score=f"{unit.score:.1f}"))
        shapes.append(
            tag(
                "rect",
                title,
                x=f"{left + 0.15 * (right - left):.1f}",
                y=height + 4,
                width=f"{0.7 * (right - left):.1f}",
                height=f"{bar:.1f}",
                class_=kind,
            )  # fmt: skip
        )
    drawing = _svg(0, 0, width, height + below + 8, shapes, say("strip"))
    return tag("figure", tag("figcaption", say("strip")), drawing)


def _beside_neighbours(found: OddResult, address: str, say: Words) -> Markup:
    """Return the part of the strip around the odd unit."""
    assert found.odd is not None
    height, width = found.strip.shape[:2]
    index, cuts = found.odd.index, found.cuts
    left, right = cuts[max(0, index - NEIGHBOURS)], cuts[min(len(cuts) - 1, index + 1 + NEIGHBOURS)]
    frame = tag(
        "rect", x=f"{cuts[index]:.1f}", y=1, width=f"{cuts[index + 1] - cuts[index]:.1f}", height=height - 2,
        class_="unit odd",
    )  # fmt: skip
    drawing = _svg(left, 0, right - left, height, [_image(address, width, height), frame], say("neighbours"))
    return tag("figure", tag("figcaption", say("neighbours")), drawing, class_="neighbours")


def _svg(
    left: float, top: float, width: float, height: float, shapes: Iterable[Markup], label: str
) -> Markup:
    view = f"{left:.1f} {top:.1f} {width:.1f} {height:.1f}"
    return tag("svg", *shapes, viewBox=view, role="img", aria_label=label, class_="drawing")


def _image(address: str, width: float, height: float) -> Markup:
    return tag("image", href=address, width=width, height=height, preserveAspectRatio="none")


def _points(polygon: Polygon) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in polygon)

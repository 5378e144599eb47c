"""What `find_odd` found, as HTML: a drawing over the photo, whose axes can be clicked, and pictures."""

from __future__ import annotations

from PIL import Image

from llava.common.html.markup import Markup, tag, together
from llava.oddone import OddResult
from llava.oddone.picture import draw_bars, draw_neighbours, draw_strip, draw_without_background
from llava.oddone.result import Polygon
from llava.serve.page.words import Words


def pictures_of(found: OddResult, photo: Image.Image) -> dict[str, Image.Image]:
    """Return the pictures of what was found in a photo, those that there are."""
    if not found.units:
        return {}
    drawn = {
        "strip": draw_strip(found),
        "bars": draw_bars(found),
        "neighbours": draw_neighbours(found),
        "cut_out": draw_without_background(photo, found),
    }
    return {key: picture for key, picture in drawn.items() if picture is not None}


def show_odd(found: OddResult, axis: int, photo: str, pictures: dict[str, str], say: Words) -> Markup:
    """Return the verdict, the photo with its units, and the pictures.

    Args:
        found: The result.
        axis: The number of the candidate axis that was taken.
        photo: Address of the photo.
        pictures: Addresses of `pictures_of`'s.
        say: The visitor's words.
    """
    figures = [
        tag(
            "figure", tag("figcaption", say(key)), tag("img", src=address, alt=say(key), class_="photo"),
            class_=key,
        )
        for key, address in pictures.items()
    ]  # fmt: skip
    return together(
        [
            tag("p", _verdict(found, say), role="status", class_="verdict"),
            *(tag("p", warning, class_="note") for warning in found.warnings),
            _photo(found, axis, photo, say),
            _axes(found, axis, say),
            *figures,
        ]
    )


def _verdict(found: OddResult, say: Words) -> str:
    if found.odd is None:
        return say("odd_none")
    key = "odd_sure" if found.odd.sure else "odd_unsure"
    return say(key, number=found.odd.index + 1, count=len(found.units), gap=f"{found.odd.gap:.1f}")


def _photo(found: OddResult, taken: int, address: str, say: Words) -> Markup:
    """Return the photo with all axes and the units of the one that was taken."""
    width, height = found.size
    shapes = [
        tag("polyline", points=_points(axis.points), class_="axis", data_axis=number)
        for number, axis in enumerate(found.candidates)
        if number != taken
    ]
    for number, unit in enumerate(found.units):
        kind = "unit out" if unit.left_out else "unit"
        title = tag("title", say("unit", number=number + 1, score=f"{unit.score:.1f}"))
        shapes.append(tag("polygon", title, points=_points(unit.polygon), class_=kind))
    if found.odd is not None:
        shapes.append(tag("polygon", points=_points(found.odd.polygon), class_="unit odd"))
    image = tag("image", href=address, width=width, height=height)
    view = f"0 0 {width} {height}"
    label = say("odd_photo")
    return tag("svg", image, *shapes, viewBox=view, role="img", aria_label=label, class_="drawing")


def _axes(found: OddResult, taken: int, say: Words) -> Markup | None:
    """Return a button for each axis that the string may run along."""
    if len(found.candidates) < 2:
        return None
    buttons = [
        tag(
            "button", number + 1, type="button", data_axis=number,
            aria_pressed="true" if number == taken else "false", aria_label=say("axis", number=number + 1),
        )
        for number in range(len(found.candidates))
    ]  # fmt: skip
    return tag("p", say("axes") + " ", *buttons, class_="axes")


def _points(polygon: Polygon) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in polygon)

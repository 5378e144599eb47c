"""What is cut out of a photo and painted, as HTML: a drawing that lies over the photo, and pictures."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from llava.common.html.markup import Markup, tag, together
from llava.common.masks import Pixels
from llava.painting.crops import crop_around
from llava.painting.diffusion import Wish
from llava.serve.page.easel import Progress
from llava.serve.page.making import Making
from llava.serve.page.outline import outline
from llava.serve.page.words import Words

MARK = 0.01
"""Radius of a click's mark, as a share of the photo's longer side."""


def draw_cut(making: Making, say: Words) -> Markup:
    """Return the mask, the labelled things and the clicks, to lie over the photo, in its pixels.

    No two turns give the same: the browser's own mark of a click that gave nothing goes with the old drawing.
    """
    width, height = making.photo.image.size
    shapes = [
        tag("path", tag("title", thing.name), d=thing.outline, class_="labelled") for thing in making.labelled
    ]
    if making.mask is not None:
        shapes.append(tag("path", d=outline(making.mask), class_="cut"))
    if making.box is not None:
        x1, y1, x2, y2 = making.box
        shapes.append(tag("rect", x=x1, y=y1, width=x2 - x1, height=y2 - y1, class_="around"))
    radius = MARK * max(width, height)
    for click in making.clicks:
        place = {"cx": f"{click.x:.1f}", "cy": f"{click.y:.1f}", "r": f"{radius:.1f}"}
        shapes.append(tag("circle", **place, class_="click" if click.inside else "click out"))
    return tag(
        "svg", *shapes, viewBox=f"0 0 {width} {height}", role="img", aria_label=say("make_drawing"),
        class_="drawing", data_turn=making.turn,
    )  # fmt: skip


def pictures_of(wish: Wish, result: Pixels, side: int) -> list[Image.Image]:
    """Return the photo and the painted picture; where that is a small part of it, also the place alone.

    `side` is of the square that the model was trained on: the place is what it saw.
    """
    shown = [wish.pixels, result]
    window = crop_around(wish.painted, side).window
    if 2 * result[window].size <= result.size:
        shown += [wish.pixels[window], result[window]]
    return [Image.fromarray(pixels) for pixels in shown]


def show_progress(progress: Progress, say: Words) -> Markup:
    """Return how far a picture is."""
    if progress.step:
        state = say("make_state", step=progress.step, steps=progress.steps)
    else:
        state = say("make_waits")
    return together(
        [
            tag("p", state, role="status"),
            tag("progress", value=progress.step, max=progress.steps, aria_label=state),
            _used(progress.wish, say),
        ]
    )


def show_made(wish: Wish, addresses: Sequence[str], say: Words) -> Markup:
    """Return a painted picture beside the photo; the addresses are those of `pictures_of`'s."""
    keys = ("make_before", "make_after", "make_place_before", "make_place_after")
    figures = [
        tag("figure", tag("figcaption", say(key)), tag("img", src=address, alt=say(key)))
        for key, address in zip(keys, addresses, strict=False)
    ]
    return together([tag("div", *figures, class_="pairs"), _used(wish, say)])


def show_kept(count: int, address: str, say: Words) -> Markup:
    """Return where the kept pictures are downloaded."""
    return _download(say("make_download", count=count), address, "made.zip", say("make_then"))


def show_labels(making: Making, address: str, say: Words) -> Markup:
    """Return where the labels of a photo are downloaded."""
    name = making.photo.name.rpartition(".")[0] or making.photo.name
    names = ", ".join(thing.name for thing in making.labelled)
    return together(
        [
            tag("p", names, role="status"),
            _download(f"{name}.json", address, f"{name}.json", say("label_then")),
        ]
    )


def _download(caption: str, address: str, name: str, then: str) -> Markup:
    link = tag("a", caption, href=address, download=name, class_="offered")
    return together([tag("p", link), tag("p", then, class_="note")])


def _used(wish: Wish, say: Words) -> Markup:
    return tag("p", say("make_used", prompt=wish.prompt, seed=wish.seed), class_="note")

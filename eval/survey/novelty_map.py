"""Draws where a photo is unlike what training held, to lie over the photo."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO

from PIL import Image

from eval.survey.findings import NoveltyMap
from llava.common.html.markup import Markup, tag

_COLOUR = (255, 0, 170)  # rare on insulators, towers and land
_STRONGEST = 190  # opacity of a 9, of 255: the photo still shows through


def draw_novelty_maps(maps: Sequence[NoveltyMap]) -> Markup | None:
    """Return an SVG that covers the photo, None without a map. What reaches beyond the photo is cut off, and
    between the middles of patches a browser blends."""
    if not maps:
        return None
    return tag(
        "svg",
        *map(_image, maps),
        viewBox="0 0 1 1",
        preserveAspectRatio="none",
        class_="novelty",
        aria_hidden="true",
    )


def _image(drawn: NoveltyMap) -> Markup:
    """Return the map as an image of a pixel a patch."""
    x1, y1, x2, y2 = drawn.box
    pixels = bytes(
        value
        for row in drawn.rows
        for level in row
        for value in (*_COLOUR, round(_STRONGEST * int(level) / 9))
    )
    content = BytesIO()
    Image.frombytes("RGBA", (len(drawn.rows[0]), len(drawn.rows)), pixels).save(content, "PNG", optimize=True)
    return tag(
        "image",
        href="data:image/png;base64," + b64encode(content.getvalue()).decode("ascii"),
        x=f"{x1:.5f}",
        y=f"{y1:.5f}",
        width=f"{x2 - x1:.5f}",
        height=f"{y2 - y1:.5f}",
        preserveAspectRatio="none",
    )

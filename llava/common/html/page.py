"""The frame of every HTML report: one page that needs nothing beside itself, no network, pictures inside.

What a browser may do with the page is said in its Content-Security-Policy (W3C): show pictures that the page
holds, apply its own style, and run the one script whose hash is named, if any.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image

from llava.common.errors import InputError
from llava.common.html.markup import Markup, tag
from llava.common.html.style import STYLE
from llava.common.images import open_image

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
Section = tuple[str, str, Markup]  # its heading, its anchor, its body


def document(
    title: str,
    header: Iterable[Markup],
    sections: Sequence[Section],
    *,
    style: str = "",
    script: str = "",
) -> str:
    """The whole page: `header` stands below the title, then links to the sections, then those."""
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    )
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
        policy += f"; script-src 'sha256-{digest}'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Markup(STYLE + style)),
    )
    body = tag(
        "body",
        tag("header", tag("h1", title), *header),
        tag("nav", *(tag("a", name, href=f"#{anchor}") for name, anchor, _ in sections)),
        tag("main", *(tag("section", tag("h2", name), body, id=anchor) for name, anchor, body in sections)),
        tag("footer", "Made by LLaVA Inspect. This page holds all its pictures and loads nothing."),
        tag("script", Markup(script)) if script else None,
    )
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def attention(warnings: Sequence[str]) -> Markup:
    if not warnings:
        return tag("div", tag("p", "Nothing that asks for attention was found."), class_="attention fine")
    return tag(
        "div",
        tag("h2", "Look at this first"),
        tag("ul", *(tag("li", line) for line in warnings)),
        class_="attention",
    )


def thumbnail(file: Path, side: int, quality: int = 82) -> str:
    """A picture as a JPEG data URI, its longer side at most `side` pixels; "" if it cannot be read."""
    try:
        image = open_image(file)
    except InputError:
        return ""
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    image.save(buffer, format="JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")

"""The frame of every HTML report: one page that needs no network, and mostly nothing beside itself.

The page's Content-Security-Policy (W3C) says what a browser may do with it: show images that the page holds
(or that lie beside it), apply its own style, and run the one script whose hash is named, if any.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from importlib import resources
from io import BytesIO
from pathlib import Path

from PIL import Image

from llava.common.errors import InputError
from llava.common.html.markup import Markup, tag
from llava.common.images import open_image
from llava.common.remote import RemoteFile

Section = tuple[str, str, Markup]
"""Heading, anchor and body of a section."""


def read_asset(package: str, name: str) -> str:
    """Return a style sheet or script that lies beside the modules of `package`."""
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


def document(
    title: str,
    header: Iterable[Markup],
    sections: Sequence[Section],
    *,
    style: str = "",
    script: str = "",
    images_beside: bool = False,
) -> str:
    """Return the whole page: the title, the header, links to the sections, then the sections.

    Args:
        title: Heading of the page and title of its tab.
        header: What stands below the title.
        sections: Heading, anchor and body of each section.
        style: CSS of this report, applied after the style that all reports share.
        script: JavaScript of this report; the policy names its hash, so that nothing else can run.
        images_beside: The page also shows image files from where it lies.
    """
    shared_style = read_asset("llava.common.html", "style.css")
    sheets = [sheet for sheet in (shared_style, style) if sheet]
    script = f"\n{script}" if script else ""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_security_policy(script, images_beside)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Markup("".join(f"\n{sheet}" for sheet in sheets))),
    )
    body = tag(
        "body",
        tag("header", tag("h1", title), *header),
        tag("nav", *(tag("a", name, href=f"#{anchor}") for name, anchor, _ in sections)),
        tag("main", *(tag("section", tag("h2", name), body, id=anchor) for name, anchor, body in sections)),
        tag("footer", f"Made by LLaVA Inspect. {_BESIDE if images_beside else _INSIDE}"),
        tag("script", Markup(script)) if script else None,
    )
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


_INSIDE = "This page holds all its pictures and loads nothing."
_BESIDE = "The pictures that it does not hold are files near it; it loads nothing from elsewhere."


def _security_policy(script: str, images_beside: bool) -> str:
    images = "data: 'self'" if images_beside else "data:"
    policy = (
        f"default-src 'none'; img-src {images}; style-src 'unsafe-inline'; base-uri 'none'; "
        "form-action 'none'"
    )
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
        policy += f"; script-src 'sha256-{digest}'"
    return policy


def callout(warnings: Sequence[str]) -> Markup:
    """Return the box of warnings that opens a report; without warnings it says that there are none."""
    if not warnings:
        return tag("div", tag("p", "Nothing that asks for attention was found."), class_="attention fine")
    return tag(
        "div",
        tag("h2", "Look at this first"),
        tag("ul", *(tag("li", line) for line in warnings)),
        class_="attention",
    )


def thumbnail(file: Path | RemoteFile, side: int, quality: int = 82) -> str:
    """Return an image as a JPEG data URI, its longer side at most `side` pixels; "" if it cannot be read."""
    return thumbnails(file, (side,), quality)[0]


def thumbnails(file: Path | RemoteFile, sides: Sequence[int], quality: int = 82) -> list[str]:
    """Return an image as JPEG data URIs, one for each of `sides`: its longer side has at most so many pixels.
    They are "" if it cannot be read."""
    try:
        image = open_image(file)
    except InputError:
        return [""] * len(sides)
    made = []
    for side in sides:
        scaled = image.copy()
        scaled.thumbnail((side, side), Image.Resampling.LANCZOS)
        made.append(jpeg_uri(scaled, quality))
    return made


def jpeg_uri(image: Image.Image, quality: int = 82) -> str:
    """Return an RGB image as a JPEG data URI."""
    buffer = BytesIO()
    image.save(buffer, format="JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")

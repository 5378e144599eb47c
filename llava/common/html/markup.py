"""Escaped HTML, and the few elements that reports are made of."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


class Markup(str):
    """Text that is HTML already and is not escaped again."""


def tag(element: str, /, *children: object, **attributes: object) -> Markup:
    """Return an element; children and attributes are escaped, except for children that are Markup.

    Children and attributes that are None are left out. The keyword `class_` is the attribute `class`; an
    underscore inside a keyword is a hyphen in the attribute.
    """
    attributes_text = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(readable(str(value)))}"'
        for key, value in attributes.items()
        if value is not None
    )
    content = "".join(
        child if isinstance(child, Markup) else html.escape(readable(str(child)))
        for child in children
        if child is not None
    )
    end = "" if element in ("img", "meta", "input") else f"</{element}>"
    return Markup(f"<{element}{attributes_text}>{content}{end}")


def readable(text: str) -> str:
    """Return the text with control characters, direction marks and lone surrogates shown as escapes.

    Unescaped, they could make a name look like another, or the page no valid UTF-8.
    """
    return "".join(
        char if char.isprintable() or char in "\n\u200c\u200d" else char.encode("unicode_escape").decode()
        for char in text
    )


def together(parts: Iterable[Markup | None]) -> Markup:
    """Join parts of a page; None is left out."""
    return Markup("".join(part for part in parts if part is not None))


def table(caption: str, head: Sequence[object], rows: Iterable[Markup]) -> Markup:
    """Return a table with a caption above it; a heading that is Markup brings its own <th>."""
    cells = [item if isinstance(item, Markup) else tag("th", item, scope="col") for item in head]
    element = tag("table", tag("thead", tag("tr", *cells)), tag("tbody", *rows), aria_label=caption)
    # The caption stands outside, or it would scroll away with a table that is wider than a phone.
    return together([tag("p", caption, class_="caption"), tag("div", element, class_="scroll")])


def number_head(text: str) -> Markup:
    return tag("th", text, scope="col", class_="number")


def table_row(name: object, *cells: object, class_: str | None = None) -> Markup:
    elements = [cell if isinstance(cell, Markup) else tag("td", cell) for cell in cells]
    return tag("tr", tag("th", name, scope="row"), *elements, class_=class_)


def number_cell(value: object, class_: str = "") -> Markup:
    text = f"{value:,}" if isinstance(value, int) else value
    return tag("td", text, class_=f"number {class_}".strip())


def strip(parts: Iterable[tuple[str, float]]) -> Markup:
    """Return a bar of coloured parts, each a CSS class and its fraction (0..1) of the bar's width."""
    return tag(
        "div",
        *(tag("i", class_=css_class, style=f"width:{100 * fraction:.2f}%") for css_class, fraction in parts),
        class_="bar",
    )


def bar_cell(fraction: float, css_class: str = "first") -> Markup:
    return tag("td", strip([(css_class, fraction)]), class_="wide")


def cut(text: str, length: int) -> str:
    """Return at most `length` characters, the last an ellipsis where something is cut off."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def first_of(shown: int, total: int) -> str:
    """Return what a caption says where only the first `shown` of `total` rows are shown."""
    return f" First {shown:,} of {total:,}." if shown < total else ""

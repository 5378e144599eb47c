"""HTML that is escaped by construction, and the few elements that reports are made of."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


class Markup(str):
    """Text that is HTML already."""


def tag(element: str, /, *children: object, **attributes: object) -> Markup:
    """An element. Children and attributes are escaped, except for children that are Markup; None is left
    out. `class_` is the attribute `class`, an underscore inside a name a hyphen."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(readable(str(value)))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inside = "".join(
        child if isinstance(child, Markup) else html.escape(readable(str(child)))
        for child in children
        if child is not None
    )
    end = "" if element in ("img", "meta", "input") else f"</{element}>"
    return Markup(f"<{element}{written}>{inside}{end}")


def readable(text: str) -> str:
    """Control characters, marks that turn the direction of writing and bytes that are no text shown as
    escapes: they could make a name look like another, or the page no UTF-8."""
    return "".join(
        char if char.isprintable() or char in "\n\u200c\u200d" else char.encode("unicode_escape").decode()
        for char in text
    )


def together(parts: Iterable[Markup | None]) -> Markup:
    return Markup("".join(part for part in parts if part is not None))


def table(caption: str, head: Sequence[object], rows: Iterable[Markup]) -> Markup:
    """Columns whose head is Markup bring their own <th>."""
    cells = [item if isinstance(item, Markup) else tag("th", item, scope="col") for item in head]
    made = tag("table", tag("thead", tag("tr", *cells)), tag("tbody", *rows), aria_label=caption)
    # The caption stands outside, or it would scroll away with a table that is wider than a phone.
    return together([tag("p", caption, class_="caption"), tag("div", made, class_="scroll")])


def number_head(text: str) -> Markup:
    return tag("th", text, scope="col", class_="number")


def table_row(name: object, *cells: object, class_: str | None = None) -> Markup:
    ready = [cell if isinstance(cell, Markup) else tag("td", cell) for cell in cells]
    return tag("tr", tag("th", name, scope="row"), *ready, class_=class_)


def number_cell(value: object, class_: str = "") -> Markup:
    shown = f"{value:,}" if isinstance(value, int) else value
    return tag("td", shown, class_=f"number {class_}".strip())


def strip(parts: Iterable[tuple[str, float]]) -> Markup:
    """A bar of (look, share 0..1) parts."""
    return tag(
        "div",
        *(tag("i", class_=look, style=f"width:{100 * share:.2f}%") for look, share in parts),
        class_="bar",
    )


def bar_cell(share: float, look: str = "first") -> Markup:
    return tag("td", strip([(look, share)]), class_="wide")


def cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def first_of(shown: int, total: int) -> str:
    """What a caption says where not everything is shown."""
    return f" First {shown:,} of {total:,}." if shown < total else ""

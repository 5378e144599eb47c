"""The columns that a table of questions may have, and what a row of it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# Role -> the names that its column may have.
COLUMN_NAMES: dict[str, tuple[str, ...]] = {
    "image": ("image", "image_path", "file_name", "picture"),
    "question": ("question", "prompt", "text", "query"),
    "answer": ("answer", "response", "label_text", "output"),
    "task": ("task",),
    "group": ("group",),
    "split": ("split",),
    "language": ("language",),
    "label": ("label", "labels"),
    "x1": ("x1", "xmin"),
    "y1": ("y1", "ymin"),
    "x2": ("x2", "xmax"),
    "y2": ("y2", "ymax"),
}
REQUIRED_ROLES = ("image", "question", "answer")

Row = tuple[str, Mapping[str, Any], str]
"""Its place ("line 7"), its values by role, and the reason if it cannot be read ("" if it can)."""


def find_columns(names: Iterable[str]) -> dict[str, str]:
    """Return the column that has each role: without regard to case, the first of the role's names."""
    known = {name.strip().casefold(): name for name in names}
    columns = {}
    for role, words in COLUMN_NAMES.items():
        if word := next((word for word in words if word in known), None):
            columns[role] = known[word]
    return columns


def has_required_columns(names: Iterable[str]) -> bool:
    return find_columns(names).keys() >= set(REQUIRED_ROLES)

"""Find made pictures where they must not be: in what a model is validated or tested on, or akin to it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from data_prep.source_folder import SPLIT_NAMES
from llava.common.records import is_synthetic

Location = TypeVar("Location")
_HELD_OUT = {name for name, split in SPLIT_NAMES.items() if split != "train"} | {"calibration"}
_TRAINED = {name for name, split in SPLIT_NAMES.items() if split == "train"}


def is_held_out(file: Path) -> bool:
    """Return whether a file's name says that its records are not trained on (`val.json`, `my_test.jsonl`)."""
    words = set(re.findall("[a-z]+", file.stem.casefold()))
    return bool(words & _HELD_OUT) and not words & _TRAINED


class MadeRecords(Generic[Location]):
    """Remembers which groups of photos are held out, and which made pictures are of which groups."""

    def __init__(self) -> None:
        self._held_out: set[str] = set()
        self._made: list[tuple[Location, list[str]]] = []

    def add(self, file: Path, location: Location, meta: Mapping[str, Any]) -> bool:
        """Add a record; return whether it is about a made picture in a file that is held out."""
        groups = meta.get("groups")
        listed = [meta.get("group"), *(groups if isinstance(groups, list) else ())]
        named = [group for group in listed if isinstance(group, str)]
        if not is_held_out(file):
            if is_synthetic(meta):
                self._made.append((location, named))
            return False
        if is_synthetic(meta):
            return True
        self._held_out.update(named)
        return False

    def akin(self) -> Iterator[tuple[Location, str]]:
        """Yield where a record is about a picture made of photos of a held-out group, and the first such."""
        for location, groups in self._made:
            if group := next((group for group in groups if group in self._held_out), None):
                yield location, group

"""Results of a benchmark that takes hours: a line for each finished unit, so that a killed one goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from llava.common.errors import InputError
from llava.common.files import read_jsonl, write_jsonl


class Unit(BaseModel):
    """What one unit of the work came to, and the settings of the benchmark that it was done with."""

    settings: dict[str, Any]
    seconds: float
    """That it took; of one that was killed and went on, since then."""


SomeUnit = TypeVar("SomeUnit", bound=Unit)


def read_units(file: Path, model: type[SomeUnit], settings: dict[str, Any]) -> list[SomeUnit]:
    """Return the units that are finished; InputError if they were done with other settings."""
    units = read_jsonl(file, model) if file.exists() else []
    if any(unit.settings != settings for unit in units):
        raise InputError(f"{file} holds results of other settings: name another --output")
    return units


def add_unit(file: Path, units: list[SomeUnit], unit: SomeUnit) -> None:
    """Append a finished unit to the list, and to the file."""
    write_jsonl(file, [*units, unit])
    units.append(unit)

"""What was measured with other programs: docs/interop/*.json, one file a check. table.py shows it."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from llava.common.files import write_text

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "interop"


class Row(BaseModel):
    """One form of a model, checked by one program."""

    model_config = ConfigDict(extra="forbid")

    form: str
    reads: bool
    """This direction was checked: what others wrote, read by us."""
    writes: bool
    """This direction was checked: what we wrote, read by the other program."""
    checked_against: str
    largest_difference: float | None
    """Of next-token logits, in absolute value; None where something else was compared (`note`)."""
    note: str = ""


class Check(BaseModel):
    model_config = ConfigDict(extra="forbid")

    command: str
    """What anyone can run to fill this again."""
    date: str
    versions: dict[str, str]
    rows: list[Row]


def write_check(name: str, command: str, versions: dict[str, str], rows: list[Row]) -> Path:
    check = Check(command=command, date=date.today().isoformat(), versions=versions, rows=rows)
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.json"
    write_text(path, check.model_dump_json(indent=2) + "\n")
    return path

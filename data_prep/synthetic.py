"""Read synthetic.json, and say what records tell of made pictures. The schema is llava.common.synthetic."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llava.common.errors import InputError
from llava.common.files import first_problem, read_json
from llava.common.synthetic import SYNTHETIC_FILE, SYNTHETIC_FORMAT, Method, SyntheticFile


@dataclass(frozen=True, slots=True)
class Origin:
    """What the records about a made picture tell of it.

    `parents` are the SHA-256 of the files of its parents, `groups` the groups of these among the photos of a
    conversion.
    """

    method: Method
    kind: str | None
    parents: tuple[str, ...]
    groups: tuple[str, ...]

    def meta(self) -> dict[str, Any]:
        """Return it as fields of a record's meta."""
        return {
            "synthetic": True,
            "method": self.method,
            "parents": list(self.parents),
            "groups": list(self.groups),
        }


def read_synthetic(folder: Path) -> SyntheticFile:
    """Read the synthetic.json of a folder; InputError where it is absent or of another form."""
    file = folder / SYNTHETIC_FILE
    if not file.is_file():
        raise InputError(f"{folder}: no {SYNTHETIC_FILE} in it; name a folder that `synthesize` wrote")
    try:
        return SyntheticFile.model_validate(read_json(file))
    except ValidationError as error:
        raise InputError(f"{file}: {first_problem(error)}; make it again with `synthesize`") from None


def says_made(data: object) -> bool:
    """Return whether what a JSON file holds says that its pictures were made, as synthetic.json does."""
    info = data.get("info") if isinstance(data, dict) else None
    return isinstance(info, dict) and info.get("format") == SYNTHETIC_FORMAT

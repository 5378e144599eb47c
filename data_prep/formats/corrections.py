"""Read corrections.json: what a person said of a survey's findings (schema: llava.common.corrections).

What was accepted or corrected is there, at its box or somewhere in the photo; where everything was rejected,
or a sound photo accepted, the photo shows nothing. Photos without a correction are not annotated, nor are
those of which a correction says that something is there, but not what.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from data_prep.annotations import AnnotatedSource, Shape
from data_prep.formats.fields import parse_class_name
from data_prep.formats.image_lists import ImageEntry, ImageList, read_image_lists
from data_prep.formats.sizes import image_size
from data_prep.source_folder import SourceFolder
from llava.common.corrections import CORRECTIONS_FORMAT, Correction, Corrections
from llava.common.errors import InputError
from llava.common.files import first_problem, read_json
from llava.common.html.markup import readable

NAME = "corrections"
_START = re.compile(rb'\A(?:\xef\xbb\xbf)?\s*\{(?=.*"format"\s*:\s*"%s")' % CORRECTIONS_FORMAT.encode(), re.S)
_DETECT_BYTES = 1 << 12
Judged = dict[tuple[str, str], tuple[Path, Correction]]  # of (survey, finding)


def detect(folder: SourceFolder) -> str | None:
    """Return why the folder looks like corrections of a survey, None if it does not."""
    count = len(_find_files(folder))
    return f"{count} JSON file(s) with the corrections of a survey" if count else None


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Read the corrections in the folder or below, of several people or surveys.

    Returns:
        The source and the problems, one line each; a caller that gets problems must not go on.

    Raises:
        InputError: The folder holds no corrections or no images.
    """
    judged: Judged = {}
    return read_image_lists(
        folder, NAME, _find_files(folder), partial(_read_file, judged), "corrections of a survey (*.json)"
    )


def _find_files(folder: SourceFolder) -> list[Path]:
    return [path for path in folder.named(".json") if _is_corrections(path)]


def _is_corrections(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return _START.match(file.read(_DETECT_BYTES)) is not None
    except OSError:
        return False


def _read_file(judged: Judged, content: ImageList) -> None:
    """Add what each correction says to its image; `judged` are those of earlier files, and gets these."""
    try:
        file = Corrections.model_validate(read_json(content.file))
    except ValidationError as error:
        reason = readable(" ".join(first_problem(error).split()))  # it may hold a name as written
        raise InputError(f"{content.file}: not a survey's corrections ({reason}); save them again") from None
    unnamed = {one.photo for one in file.corrections if not one.names_what_is_there}
    for number, correction in enumerate(file.corrections, start=1):
        place = f"correction {number} (finding {correction.finding!r})"
        other, earlier = judged.setdefault((file.survey, correction.finding), (content.file, correction))
        if _says(earlier) != _says(correction):
            content.add_problem(place, f"is judged otherwise in {other}; keep one of them")
        elif correction.photo not in unnamed and (entry := content.entry(correction.photo)) is not None:
            try:
                _add(correction, entry, f"{content.file}, {place}:")
            except InputError as error:
                content.add_problem(place, error)
    if unnamed:
        content.notes.append(
            f"{content.file}: {len(unnamed)} photo(s) left out, of which a correction says that something is "
            f"there, but not what, for instance {min(unnamed)!r}; correct them with a kind"
        )


def _says(correction: Correction) -> tuple[object, ...]:
    """Return what a correction says is there."""
    named = correction.names_what_is_there  # a sound photo accepted or rejected has neither kind nor box
    if correction.verdict == "reject":
        return (named, None, None)
    return (named, correction.kind, correction.box)


def _add(correction: Correction, entry: ImageEntry, place: str) -> None:
    """Add what a correction says is there to the entry of its photo. InputError if that cannot be read."""
    kind = parse_class_name(correction.kind)
    if correction.verdict == "reject" or kind is None:
        return
    if correction.box is None:
        entry.labels[kind] = None
        return
    width, height = entry.size = entry.size or image_size(entry.image)
    x1, y1, x2, y2 = correction.box
    entry.shapes.add(Shape(kind, (x1 * width, y1 * height, x2 * width, y2 * height)), place)

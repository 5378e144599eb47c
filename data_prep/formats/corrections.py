"""Read corrections.json: what a person said of a survey's findings (schema: llava.common.corrections).

What was accepted or corrected is there, at its box or somewhere in the photo; where everything was rejected,
or a sound photo accepted, the photo shows nothing. Photos without a correction are not annotated, nor are
those of which a correction in any file says that something is there, but not what, or what, but not where: of
a burst, a finding has its place in one photo.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
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


@dataclass
class _Judged:
    """What all files read so far say: corrections by (survey, finding), images by (survey, photo)."""

    corrections: dict[tuple[str, str], tuple[Path, Correction]] = field(default_factory=dict)
    images: dict[tuple[str, str], Path] = field(default_factory=dict)


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
    judged = _Judged()
    source, problems = read_image_lists(
        folder, NAME, _find_files(folder), partial(_read_file, judged), "corrections of a survey (*.json)"
    )
    return _without_unclear(source, judged), problems


def _find_files(folder: SourceFolder) -> list[Path]:
    return [path for path in folder.named(".json") if _is_corrections(path)]


def _is_corrections(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return _START.match(file.read(_DETECT_BYTES)) is not None
    except OSError:
        return False


def _read_file(judged: _Judged, content: ImageList) -> None:
    """Add what each correction says to its image; `judged` are those of earlier files, and gets these."""
    try:
        file = Corrections.model_validate(read_json(content.file))
    except ValidationError as error:
        reason = readable(" ".join(first_problem(error).split()))  # it may hold a name as written
        raise InputError(f"{content.file}: not a survey's corrections ({reason}); save them again") from None
    for number, correction in enumerate(file.corrections, start=1):
        place = f"correction {number} (finding {correction.finding!r})"
        other, earlier = judged.corrections.setdefault(
            (file.survey, correction.finding), (content.file, correction)
        )
        if _says(earlier) != _says(correction):
            content.add_problem(place, f"is judged otherwise in {other}; keep one of them")
        elif (entry := content.entry(correction.photo)) is not None:
            judged.images[file.survey, correction.photo] = entry.image
            try:
                _add(correction, entry, f"{content.file}, {place}:")
            except InputError as error:
                content.add_problem(place, error)


def _without_unclear(source: AnnotatedSource, judged: _Judged) -> AnnotatedSource:
    """Return the source without the photos that show something of which not all is known, with a note."""
    unnamed: set[Path] = set()
    unplaced: set[Path] = set()
    for (survey, _), (_, one) in judged.corrections.items():
        if not one.names_what_is_there:
            names, unclear = [one.photo], unnamed
        else:
            names, unclear = (one.more_photos if one.verdict != "reject" and one.kind else []), unplaced
        unclear.update(judged.images[survey, name] for name in names if (survey, name) in judged.images)
    notes = list(source.notes)
    why = {
        "of which a correction says that something is there, but not what; correct them with a kind": unnamed,
        "which show what has its place in another photo of the burst": unplaced,
    }
    for words, images in why.items():
        if images:
            notes.append(f"left out, for instance {min(images).name!r}: {len(images)} photo(s) {words}")
    left_out = unnamed | unplaced
    kept = tuple(image for image in source.images if image.file not in left_out)
    others = tuple(sorted({*source.unannotated, *left_out}))
    return replace(source, images=kept, unannotated=others, notes=tuple(notes))


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

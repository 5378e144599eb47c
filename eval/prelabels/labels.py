"""What a survey found, as labels of photos: what every writer of this package gets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from eval.survey.findings import Finding, Findings
from llava.common.boxes import Box
from llava.common.errors import InputError
from llava.common.files import first_problem, inside, read_json
from llava.common.images import upright_size

_DECIMALS = 2  # of pixels


@dataclass(frozen=True)
class Label:
    """A kind of defect, at a box in pixels of the upright photo or, without one, somewhere in it; `score` is
    the model's probability, None where it gave none."""

    kind: str
    score: float | None
    box: Box | None


@dataclass(frozen=True)
class LabelledPhoto:
    """A photo by its name below the photos' folder, its upright (width, height), and what the model found."""

    name: str
    size: tuple[int, int]
    labels: tuple[Label, ...]

    @property
    def boxes(self) -> list[tuple[Label, Box]]:
        return [(label, label.box) for label in self.labels if label.box]

    @property
    def without_box(self) -> list[Label]:
        return [label for label in self.labels if not label.box]


@dataclass(frozen=True)
class PreLabels:
    """Photos of `folder` with labels of `kinds`, by the model `model_id`."""

    folder: Path
    model_id: str
    kinds: tuple[str, ...]
    photos: tuple[LabelledPhoto, ...]

    def only(self, names: Iterable[str]) -> PreLabels:
        """Return the pre-labels of some photos alone, in the order of `names`."""
        by_name = {photo.name: photo for photo in self.photos}
        return PreLabels(self.folder, self.model_id, self.kinds, tuple(by_name[name] for name in names))

    def with_boxes(self) -> PreLabels:
        """Return the pre-labels of the photos that have a box alone."""
        return self.only(photo.name for photo in self.photos if photo.boxes)


def read_findings(file: Path) -> Findings:
    """Read findings.json. InputError naming the file and the field that is wrong."""
    if not file.is_file():
        raise InputError(f"{file}: no such file; a survey writes it when all is answered (findings.json)")
    try:
        found = Findings.model_validate(read_json(file))
    except ValidationError as error:
        raise InputError(f"{file}: not a survey's findings ({first_problem(error)})") from None
    for finding in found.findings:
        x1, y1, x2, y2 = finding.box or (0, 0, 1, 1)
        if not (0 <= x1 <= x2 <= 1 and 0 <= y1 <= y2 <= 1):
            raise InputError(
                f"{file}: the box of finding {finding.id!r} is not x1, y1, x2, y2 in 0..1; survey again"
            )
    return found


def is_label(finding: Finding) -> bool:
    """Return whether a finding says what there is: a kind of defect, for sure or left to a person."""
    return finding.decision != "sound" and finding.kind is not None


def prelabels_of(findings: Findings, folder: Path) -> PreLabels:
    """Return the labels of every photo that shows a finding best; of most it will be none.

    Args:
        findings: What the survey found.
        folder: The photos' folder.

    Raises:
        InputError: A photo is not in the folder, or cannot be read and its size is not known.
    """
    of_photo: dict[str, list[Finding]] = {}
    for finding in findings.findings:
        if not finding.problem:
            of_photo.setdefault(finding.photo, []).append(finding)
    photos = []
    for name, about in of_photo.items():
        size = _size(inside(folder, name), about)
        photos.append(LabelledPhoto(name, size, tuple(_label(one, size) for one in about if is_label(one))))
    used = [label.kind for photo in photos for label in photo.labels]
    # A tool needs a class to label with, where neither the recipe nor the survey names a kind.
    kinds = [*findings.kinds, *used] or [finding.about for finding in findings.findings]
    return PreLabels(folder, findings.model_id, tuple(dict.fromkeys(kinds)), tuple(photos))


def _size(path: Path, about: Sequence[Finding]) -> tuple[int, int]:
    """Return the upright photo's (width, height), as the survey states it, else as its file does."""
    if not path.is_file():
        raise InputError(f"{path}: no such photo; name the folder of the survey's photos with --photos")
    for finding in about:
        if finding.width and finding.height:
            return finding.width, finding.height
    height, width = upright_size(path)
    return width, height


def _label(finding: Finding, size: tuple[int, int]) -> Label:
    box = finding.box and (
        round(finding.box[0] * size[0], _DECIMALS),
        round(finding.box[1] * size[1], _DECIMALS),
        round(finding.box[2] * size[0], _DECIMALS),
        round(finding.box[3] * size[1], _DECIMALS),
    )
    return Label(str(finding.kind), _score(finding), box)


def _score(finding: Finding) -> float | None:
    """Return how sure the model is that the defect is there and of this kind: the product of both, as
    detectors score a box (Redmon et al., "You Only Look Once", 2016, section 2)."""
    known = [p for p in (finding.p_yes, finding.kind_probability) if p is not None]
    return round(math.prod(known), 4) if known else None


def files_beside(
    photos: Iterable[LabelledPhoto], output: Path, suffix: str
) -> Iterator[tuple[LabelledPhoto, Path]]:
    """Yield each photo with the file of its labels, which lies in `output` as the photo lies in its folder.

    InputError for two photos that would share a file.
    """
    owners: dict[Path, str] = {}
    for photo in photos:
        file = inside(output, PurePosixPath(photo.name).with_suffix(suffix).as_posix())
        if owners.setdefault(file, photo.name) != photo.name:
            raise InputError(
                f"{owners[file]} and {photo.name} would share the labels in {file.name}; rename one of them, "
                "and survey again"
            )
        file.parent.mkdir(parents=True, exist_ok=True)
        yield photo, file

"""The files of a survey: findings as JSON, tables and maps, and the register to work through them."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from eval.report.phrases import counted
from eval.survey.findings import Finding, Findings
from eval.survey.photos import PhotoFacts
from eval.survey.places import located, write_geojson, write_kml
from eval.survey.register import THUMBNAILS, write_register
from eval.survey.tables import can_write_xlsx, write_csv, write_xlsx
from llava.common.destination import send_folder
from llava.common.environment import how_to_install
from llava.common.files import to_json, write_json
from llava.common.remote import shown

_MAX_LISTED = 20  # photos that cannot be read
_OPTIONAL = ("findings.xlsx", "findings.geojson", "findings.kml")


def survey_id(model: str, photos: Sequence[PhotoFacts], findings: Sequence[Finding]) -> str:
    """Return a hash of a survey: of the model's name, the photos, and all that a person judges of the
    findings. What was said of them is not taken for a word on others, such as those of the next model of the
    same name."""
    judged = [(one.id, one.photos, one.about, one.decision, one.kind, one.box, one.place) for one in findings]
    parts = [model, [(photo.name, photo.sha256) for photo in photos], judged]
    return hashlib.sha256(to_json(parts).encode()).hexdigest()[:16]


def write_survey(
    output: Path, register: Findings, photos: Sequence[PhotoFacts], destination: Path | None = None
) -> None:
    """Write all files of a survey to the folder `output`, and take away those of an earlier one that are not
    written anew (a survey without places has no map). `destination` is where they will be opened: `output`,
    or the address to which it is sent."""
    findings = register.findings
    for name in _OPTIONAL:
        (output / name).unlink(missing_ok=True)
    shutil.rmtree(output / THUMBNAILS, ignore_errors=True)
    write_csv(output / "findings.csv", findings)
    if can_write_xlsx():
        write_xlsx(output / "findings.xlsx", findings)
    if located(findings):
        write_geojson(output / "findings.geojson", findings)
        write_kml(output / "findings.kml", f"Survey of {Path(register.photos_folder).name}", findings)
    write_register(
        output,
        register,
        {photo.name: photo.path for photo in photos},
        {photo.name: photo.thumbnail for photo in photos},
        destination,
    )
    write_json(output / "findings.json", register)


def send_survey(made: Path, output: Path) -> None:
    """Send the files of a survey, without answers, from where they were made to the address of `output`."""
    last = ["register.html", "answers.jsonl"]
    send_folder(made, output, last, replaced=[*_OPTIONAL, f"{THUMBNAILS}/"])


_FILES: Mapping[str, str] = {
    "register.html": "to work through the findings",
    "findings.csv": "a row per finding; opens in Excel",
    "findings.xlsx": "the same as a workbook",
    "findings.geojson": "those with a place, for a GIS",
    "findings.kml": "the same for Google Earth",
    "findings.json": "everything, for programs",
}


def report(output: Path, register: Findings, destination: Path) -> None:
    """Print what was found, and where it is written: made in `output`, perhaps sent to `destination`."""
    decided = Counter(finding.decision for finding in register.findings)
    photos = {name for finding in register.findings for name in finding.photos}
    print(
        f"{counted(len(photos), 'photo')}, {counted(len(register.findings), 'finding')}: "
        f"{decided['defect']:,} of a defect, {decided['ask']:,} for a person, {decided['sound']:,} sound",
        file=sys.stderr,
    )
    for name, what in _FILES.items():
        if (output / name).is_file():
            print(f"  {shown(destination / name)}  {what}", file=sys.stderr)
    if not can_write_xlsx():
        print(f"no workbook: for findings.xlsx, {how_to_install('xlsx')}", file=sys.stderr)
    unreadable = [finding for finding in register.findings if finding.reason == "unreadable"]
    for finding in unreadable[:_MAX_LISTED]:
        print(f"  {finding.photo}: {finding.problem}", file=sys.stderr)
    if len(unreadable) > _MAX_LISTED:
        print(f"  and {len(unreadable) - _MAX_LISTED} more that cannot be read", file=sys.stderr)

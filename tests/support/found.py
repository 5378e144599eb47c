"""Findings of a survey, made by hand."""

from pathlib import Path
from typing import Any

from PIL import Image

from eval.survey.findings import Finding, Findings
from llava.common.files import write_json

SIZE = (100, 50)


def finding(id: str, photo: str, decision: str = "defect", **more: Any) -> Finding:
    """Return a finding about one photo of `SIZE`; `more` are its other fields."""
    facts = {"photos": [photo], "width": SIZE[0], "height": SIZE[1]} | more
    return Finding.model_validate({"id": id, "photo": photo, "decision": decision, **facts})


def write_survey(folder: Path, *found: Finding, kinds: tuple[str, ...] = ()) -> Path:
    """Write `folder/survey/findings.json`, and the findings' photos to `folder/photos`. Returns the file."""
    photos = folder / "photos"
    for number, name in enumerate(dict.fromkeys(name for one in found for name in one.photos)):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE, (number * 40 % 256, number, 90)).save(photos / name)
    findings = Findings(
        survey="0f2c",
        model_id="tuned-v3",
        recipe="insulator",
        photos_folder=str(photos),
        kinds=list(kinds),
        findings=list(found),
    )
    file = folder / "survey" / "findings.json"
    write_json(file, findings)
    return file

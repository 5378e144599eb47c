"""The files of a survey, read back by what is meant to read them."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from eval.survey.exif import Taken
from eval.survey.findings import Finding, Findings
from eval.survey.output import survey_id, write_survey
from eval.survey.photos import PhotoFacts
from tests.support.html_page import HOSTILE, Page
from tests.support.surveyed import jpeg, register_of

KML = "{http://www.opengis.net/kml/2.2}"
DEFECT = Finding(
    id="a1",
    photo="line 3/turm ü.jpg",
    photos=["line 3/turm ü.jpg", "line 3/b.jpg"],
    asset="line 3",
    time="2026-06-12T09:00:25",
    latitude=-33.8567844,
    longitude=151.2152967,
    altitude=81.25,
    decision="defect",
    p_yes=0.93,
    kind="flashover",
    kind_probability=0.9,
    box=(0.1, 0.2, 0.3, 0.4),
    place="left",
    count=1,
)
SOUND = Finding(
    id="b2", photo="=1+1.jpg", photos=["=1+1.jpg"], latitude=-33.86, longitude=151.22, decision="sound"
)
UNREADABLE = Finding(
    id="c3", photo="cut.jpg", photos=["cut.jpg"], decision="ask", reason="unreadable", problem="cut short"
)
FOUND = [DEFECT, SOUND, UNREADABLE]


def write(folder: Path, findings: list[Finding], thumbnail: bytes | None = None) -> Path:
    photos = [
        PhotoFacts(name, Path("/photos") / name, thumbnail=jpeg(1) if thumbnail is None else thumbnail)
        for finding in findings
        for name in finding.photos
        if not finding.problem
    ]
    photos += [PhotoFacts("cut.jpg", Path("/photos/cut.jpg"), problem="cut short", taken=Taken())]
    folder.mkdir(exist_ok=True)
    write_survey(folder, register_of(findings), photos)
    return folder


def test_json_csv_and_workbook_hold_the_same(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    write(tmp_path, FOUND)
    register = Findings.model_validate_json((tmp_path / "findings.json").read_text(encoding="utf-8"))
    assert register == register_of(FOUND)
    assert (tmp_path / "findings.csv").read_bytes().startswith(b"\xef\xbb\xbf"), "for Excel"
    with (tmp_path / "findings.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["photo"] for row in rows] == ["line 3/turm ü.jpg", "=1+1.jpg", "cut.jpg"]
    assert rows[0]["box"] == "0.1000, 0.2000, 0.3000, 0.4000" and rows[0]["more_photos"] == "line 3/b.jpg"
    assert (rows[0]["p_yes"], rows[0]["latitude"], rows[2]["problem"]) == ("0.93", "-33.8567844", "cut short")
    sheet = openpyxl.load_workbook(tmp_path / "findings.xlsx").active
    head, *lines = sheet.iter_rows(values_only=True)
    assert head == tuple(rows[0]) and [line[0] for line in lines] == [row["photo"] for row in rows]
    assert sheet["A3"].data_type == "s", "the name of a file is no formula"
    assert lines[0][head.index("p_yes")] == 0.93


def test_maps_have_the_findings_with_a_place(tmp_path: Path) -> None:
    write(tmp_path, FOUND)
    collection = json.loads((tmp_path / "findings.geojson").read_text(encoding="utf-8"))
    assert collection["type"] == "FeatureCollection" and len(collection["features"]) == 2
    first, second = collection["features"]
    assert first["type"] == "Feature" and first["id"] == "a1"
    assert first["geometry"] == {"type": "Point", "coordinates": [151.2152967, -33.8567844, 81.25]}
    assert second["geometry"]["coordinates"] == [151.22, -33.86]
    assert first["properties"]["kind"] == "flashover" and first["properties"]["decision"] == "defect"

    kml = ET.parse(tmp_path / "findings.kml").getroot()
    assert kml.tag == f"{KML}kml"
    marks = kml.findall(f"{KML}Document/{KML}Folder/{KML}Placemark")
    assert [mark.findtext(f"{KML}Point/{KML}coordinates") for mark in marks] == [
        "151.2152967,-33.8567844,81.25",
        "151.22,-33.86",
    ]
    assert marks[0].findtext(f"{KML}TimeStamp/{KML}when") == "2026-06-12T09:00:25"
    styles = {f"#{style.get('id')}" for style in kml.iter(f"{KML}Style")}
    assert {mark.findtext(f"{KML}styleUrl") for mark in marks} <= styles


def test_a_survey_without_places_takes_the_maps_of_an_earlier_one_away(tmp_path: Path) -> None:
    write(tmp_path, FOUND)
    write(tmp_path, FOUND[2:])
    assert {path.name for path in tmp_path.iterdir()} - {"findings.xlsx"} == {
        *("findings.json", "findings.csv", "register.html")
    }


def test_what_was_said_of_other_findings_belongs_to_another_survey() -> None:
    """The next model often has the same name, and asks the same of the same photos."""
    photos = [PhotoFacts(name, Path(name), "0" * 64) for name in DEFECT.photos]
    same = survey_id("merged", photos, [DEFECT])
    assert survey_id("merged", photos, [DEFECT.model_copy()]) == same
    for changed in ({"box": (0.5, 0.2, 0.7, 0.4)}, {"decision": "ask"}, {"photos": DEFECT.photos[:1]}):
        assert survey_id("merged", photos, [DEFECT.model_copy(update=changed)]) != same


def test_names_and_reports_are_escaped_everywhere(tmp_path: Path) -> None:
    findings = [
        Finding(
            id=str(number), photo=text, photos=[text], asset=text, decision="defect", kind=text, place=text,
            report=text, latitude=1.0, longitude=2.0,
        )
        for number, text in enumerate(HOSTILE[:-1])
    ]  # fmt: skip
    write(tmp_path, findings)
    page = Page((tmp_path / "register.html").read_text(encoding="utf-8"))
    assert len(page.named("script")) == 1 and not [
        attributes for _, attributes in page.elements if "onerror" in attributes or "onload" in attributes
    ]
    assert "<script>alert(1)</script>" in page.text
    ET.parse(tmp_path / "findings.kml")


def test_many_pictures_lie_beside_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sources() -> list[str | None]:
        page = Page((tmp_path / "register.html").read_text(encoding="utf-8"))
        return [image["src"] for image in page.named("img")]

    write(tmp_path, FOUND)
    assert all(str(source).startswith("data:image/jpeg;base64,") for source in sources())
    assert not (tmp_path / "thumbnails").exists()
    monkeypatch.setattr("eval.survey.register.MAX_EMBEDDED", 100)
    write(tmp_path, FOUND)
    assert sources() == ["thumbnails/00000.jpg", "thumbnails/00001.jpg"]
    assert all((tmp_path / str(source)).read_bytes() == jpeg(1) for source in sources())

"""findings.geojson and findings.kml: the findings whose photos say where they were taken."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from eval.survey.findings import Finding
from eval.survey.tables import COLUMNS, row
from llava.common.files import atomic_path, write_json
from llava.common.html.markup import readable
from llava.common.records import Call

_KML = "http://www.opengis.net/kml/2.2"
_COLOURS: dict[Call, str] = {"defect": "ff2e3bd6", "ask": "ff1f9be0", "sound": "ff57a036"}  # aabbggrr


def located(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings that have a place on the earth."""
    return [finding for finding in findings if finding.latitude is not None and finding.longitude is not None]


def _position(finding: Finding) -> list[float]:
    """Return longitude, latitude and, where it is known, the altitude: the order of RFC 7946 and KML."""
    assert finding.latitude is not None and finding.longitude is not None
    altitude = [] if finding.altitude is None else [finding.altitude]
    return [finding.longitude, finding.latitude, *altitude]


def write_geojson(path: Path, findings: Sequence[Finding]) -> None:
    """Write a FeatureCollection of points (RFC 7946); the properties are the columns of findings.csv."""
    features = [
        {
            "type": "Feature",
            "id": finding.id,
            "geometry": {"type": "Point", "coordinates": _position(finding)},
            "properties": dict(zip(COLUMNS, row(finding), strict=True)),
        }
        for finding in located(findings)
    ]
    write_json(path, {"type": "FeatureCollection", "features": features})


def write_kml(path: Path, name: str, findings: Sequence[Finding]) -> None:
    """Write placemarks (OGC KML 2.2) in a folder per decision, in a colour each."""
    ET.register_namespace("", _KML)
    root = ET.Element(f"{{{_KML}}}kml")
    document = _add(root, "Document")
    _add(document, "name", name)
    for decision, colour in _COLOURS.items():
        style = _add(document, "Style")
        style.set("id", decision)
        _add(_add(style, "IconStyle"), "color", colour)
    for decision in _COLOURS:
        placed = [finding for finding in located(findings) if finding.decision == decision]
        if placed:
            folder = _add(document, "Folder")
            _add(folder, "name", decision)
            for finding in placed:
                _add_placemark(folder, finding)
    with atomic_path(path) as temporary:
        ET.ElementTree(root).write(temporary, encoding="utf-8", xml_declaration=True)


def _add_placemark(folder: ET.Element, finding: Finding) -> None:
    placemark = _add(folder, "Placemark")
    placemark.set("id", f"finding-{finding.id}")
    _add(placemark, "name", f"{finding.kind or finding.decision}: {finding.photo}")
    if finding.time:
        _add(_add(placemark, "TimeStamp"), "when", finding.time)
    _add(placemark, "styleUrl", f"#{finding.decision}")
    data = _add(placemark, "ExtendedData")
    for column, value in zip(COLUMNS, row(finding), strict=True):
        if value is not None:
            item = _add(data, "Data")
            item.set("name", column)
            _add(item, "value", str(value))
    coordinates = ",".join(f"{number:.7f}".rstrip("0").rstrip(".") for number in _position(finding))
    _add(_add(placemark, "Point"), "coordinates", coordinates)


def _add(parent: ET.Element, name: str, text: str | None = None) -> ET.Element:
    element = ET.SubElement(parent, f"{{{_KML}}}{name}")
    if text is not None:
        element.text = readable(text)  # XML has no control characters
    return element

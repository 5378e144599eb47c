"""Write "CVAT for images 1.1" (docs.cvat.ai/docs/dataset_management/formats/format-cvat), and its labels.

A box has the model's probability as an attribute, so the labels must have one of that name: labels.json says
so in the form of CVAT's raw editor.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

from eval.prelabels.labels import Label, LabelledPhoto, PreLabels
from llava.common.files import write_json

LABELS_WHOLE_PHOTOS = True
HINT = """make a task of the photos, with labels.json pasted under Raw as its labels,
and upload annotations.xml as CVAT 1.1"""

_PROBABILITY = "probability"


def write(labels: PreLabels, output: Path) -> None:
    """Write annotations.xml and labels.json."""
    root = Element("annotations")
    SubElement(root, "version").text = "1.1"
    task = SubElement(SubElement(root, "meta"), "task")
    SubElement(task, "size").text = str(len(labels.photos))
    listed = SubElement(task, "labels")
    for kind in labels.kinds:
        label = SubElement(listed, "label")
        SubElement(label, "name").text = kind
        attribute = SubElement(SubElement(label, "attributes"), "attribute")
        for key, value in (("name", _PROBABILITY), ("mutable", "False"), ("input_type", "text")):
            SubElement(attribute, key).text = value
    for number, photo in enumerate(labels.photos):
        _add_image(root, number, photo)
    indent(root)
    ElementTree(root).write(output / "annotations.xml", encoding="utf-8", xml_declaration=True)
    write_json(output / "labels.json", [_raw_label(kind) for kind in labels.kinds])


def _add_image(root: Element, number: int, photo: LabelledPhoto) -> None:
    width, height = map(str, photo.size)
    image = SubElement(root, "image", id=str(number), name=photo.name, width=width, height=height)
    for label, box in photo.boxes:
        place = dict(zip(("xtl", "ytl", "xbr", "ybr"), (f"{side:.2f}" for side in box), strict=True))
        facts = {"label": label.kind, "source": "auto", "occluded": "0", **place, "z_order": "0"}
        element = SubElement(image, "box", facts)
        _add_probability(element, label)
    for label in photo.without_box:
        _add_probability(SubElement(image, "tag", label=label.kind, source="auto"), label)


def _add_probability(element: Element, label: Label) -> None:
    if label.score is not None:
        SubElement(element, "attribute", name=_PROBABILITY).text = f"{label.score:g}"


def _raw_label(kind: str) -> dict[str, Any]:
    # The editor refuses an attribute without a value, also where it may be any text.
    attribute = {"name": _PROBABILITY, "input_type": "text", "mutable": False, "values": [""]}
    return {"name": kind, "type": "any", "attributes": [{**attribute, "default_value": ""}]}

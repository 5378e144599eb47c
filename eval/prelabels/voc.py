"""Write Pascal VOC, an XML for each photo.

The format: The PASCAL Visual Object Classes Challenge 2012, development kit, section 3.1. It has no place for
a probability.
"""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

from eval.prelabels.labels import LabelledPhoto, PreLabels, files_beside
from llava.common.files import inside

LABELS_WHOLE_PHOTOS = False
HINT = "open the photos in labelImg, with this folder as the one to save in"


def write(labels: PreLabels, output: Path) -> None:
    """Write an XML for each photo."""
    for photo, file in files_beside(labels.photos, output, ".xml"):
        root = _content(photo, inside(labels.folder, photo.name).resolve())
        indent(root)
        ElementTree(root).write(file, encoding="utf-8")


def _content(photo: LabelledPhoto, path: Path) -> Element:
    root = Element("annotation")
    SubElement(root, "folder").text = path.parent.name
    SubElement(root, "filename").text = path.name
    SubElement(root, "path").text = str(path)
    size = SubElement(root, "size")
    for key, value in (("width", photo.size[0]), ("height", photo.size[1]), ("depth", 3)):
        SubElement(size, key).text = str(value)
    for label, (x1, y1, x2, y2) in photo.boxes:
        element = SubElement(root, "object")
        for key, text in (
            ("name", label.kind),
            ("pose", "Unspecified"),
            ("truncated", "0"),
            ("difficult", "0"),
        ):
            SubElement(element, key).text = text
        # Whole pixels, which is all that many readers of the format take; none of the box is lost.
        corners = SubElement(element, "bndbox")
        sides = {"xmin": math.floor(x1), "ymin": math.floor(y1), "xmax": math.ceil(x2), "ymax": math.ceil(y2)}
        for key, value in sides.items():
            SubElement(corners, key).text = str(value)
    return root

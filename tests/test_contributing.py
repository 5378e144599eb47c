"""CONTRIBUTING.md's example of an annotation format works as it stands."""

import re
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from data_prep.source_folder import SourceFolder
from tests.support.paths import REPO


@pytest.fixture(scope="module")
def reader() -> ModuleType:
    text = (REPO / "CONTRIBUTING.md").read_text(encoding="utf-8")
    example = re.search(
        r"<!-- tests/test_contributing.py runs this -->\n```python\n(.*?)```", text, re.DOTALL
    )
    assert example
    module = ModuleType("boxes")
    exec(compile(example[1], "CONTRIBUTING.md", "exec"), vars(module))
    return module


def test_the_example_reads_boxes_and_names_bad_lines(reader: ModuleType, tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.new("RGB", (100, 50)).save(tmp_path / f"{name}.jpg")
    (tmp_path / "a.boxes").write_text("crack 10 10 20 30\ncrack 10 10 20 30\nrust 5 5 5 9\n")
    (tmp_path / "b.boxes").write_text("crack 1 2 3\n")
    folder = SourceFolder.scan(tmp_path)
    assert reader.detect(folder) == "2 .boxes file(s)"
    source, problems = reader.read(folder)
    (image,) = source.images
    (annotation,) = image.annotations
    assert [(shape.name, shape.box) for shape in annotation.shapes] == [("crack", (10, 10, 20, 30))]
    assert len(annotation.notes) == 2  # one box twice, one without width
    assert problems == [f"{tmp_path / 'b.boxes'}, line 1: expected `label x1 y1 x2 y2`"]

"""Each real folder converted end to end, with the counts that are known of it."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data_prep.__main__ import main as data_prep
from llava.common.boxes import from_frame, parse_box
from llava.common.files import read_json_list
from llava.common.records import Record

pytestmark = pytest.mark.slow

SPLITS = ("train", "val", "test")
RECIPE = """
components: [{name: insulator}]
defects: [{name: defect, aliases: [broken]}, {name: nest}]
families:
  presence: {questions: [Is there a defect?]}
  box: {family: where, type: box, questions: [Give the box of the defect.]}
"""


@pytest.fixture
def convert(repo: Path, tmp_path: Path) -> Callable[..., Path]:
    """Runs the command with a shipped recipe, or the one above, and `check` on all that it wrote."""

    def run(source: Path, *more: str, recipe: str = "", output: str = "out") -> Path:
        file = repo / "configs" / "recipes" / f"{recipe}.yaml"
        if not recipe:
            file = tmp_path / "recipe.yaml"
            file.write_text(RECIPE)
        out = tmp_path / output
        options = ["--source", str(source), "--recipe", str(file), "--output", str(out)]
        assert data_prep(["convert", *options, *more]) == 0
        files = [str(out / f"{split}.json") for split in SPLITS if records(out, split)]
        findings = tmp_path / f"{output}.findings.json"
        data_prep(["check", *files, "--image-folder", str(out), "--json", str(findings)])
        found = {finding["kind"] for finding in json.loads(findings.read_text())["findings"]}
        assert not found - {"one-sided"}  # few pictures may well be
        return out

    return run


def manifest(out: Path) -> dict[str, Any]:
    return json.loads((out / "manifest.json").read_text())


def images(out: Path) -> dict[str, int]:
    """How many pictures show what, in all splits together."""
    total: Counter[str] = Counter()
    for split in manifest(out)["splits"].values():
        total.update(split["labels"])
    return dict(total)


def groups(out: Path) -> int:
    return sum(split["groups"] for split in manifest(out)["splits"].values())


def records(out: Path, split: str) -> list[Record]:
    file = out / f"{split}.json"
    return read_json_list(file, Record) if file.exists() else []


def test_cplid(shared_data: Path, convert: Callable[..., Path]) -> None:
    out = convert(shared_data / "cplid", "group.objects=false", recipe="defect")
    assert images(out) == {"defect": 60, "none": 76}  # crops around components
    assert groups(out) == 103
    assert manifest(out)["leaks"]["twins"] == 3
    sources = {image["source"] for image in manifest(out)["pictures"].values()}
    assert len(sources) == 106
    splits = {
        image["source"].rsplit("/", 1)[-1]: image["split"]
        for image in manifest(out)["pictures"].values()
        if "Normal" in image["source"]
    }
    for one, other in (("1608", "1938"), ("2984", "0150"), ("0852", "1876")):
        assert splits[one] == splits[other]


def test_pasted_strings_of_cplid(shared_data: Path, convert: Callable[..., Path]) -> None:
    """Its defective pictures are some twenty strings, pasted on sixty backgrounds."""
    pytest.importorskip("cv2")
    out = convert(shared_data / "cplid", recipe="defect")
    assert groups(out) == 65
    assert manifest(out)["looked_for"]["objects"] == 57


def test_roboflow(shared_data: Path, convert: Callable[..., Path]) -> None:
    # Without balance, so that every picture is kept.
    out = convert(shared_data / "roboflow_coco", "splits.given=keep", "families.presence.balance=null")
    assert images(out) == {"defect": 59, "none": 166}
    assert groups(out) == 75
    kept = Counter(image["split"] for image in manifest(out)["pictures"].values())
    assert kept == {"train": 175, "val": 25, "test": 25}
    assert any("insulators-defects" in note for note in manifest(out)["warnings"])


def test_steel(shared_data: Path, convert: Callable[..., Path]) -> None:
    out = convert(shared_data / "neu_det", recipe="steel_surface")
    kinds = {"crazing": 30, "inclusion": 31, "patches": 28, "pitted surface": 30, "rolled-in scale": 30}
    assert images(out) == {**kinds, "scratches": 29}
    # patches_101 and patches_105 are one picture, with other boxes in each.
    assert manifest(out)["left_out"]["copies of one picture that are annotated differently"] == 2
    twice = "crazing_120.xml: box 4 (crazing) is there twice; kept once"
    assert any(note.endswith(twice) for note in manifest(out)["warnings"])


def test_magnetic_tiles(shared_data: Path, convert: Callable[..., Path]) -> None:
    out = convert(shared_data / "magnetic_tile", recipe="magnetic_tile")
    kinds = ("blowhole", "break", "crack", "fray", "uneven surface")
    assert images(out) == {"none": 75, **dict.fromkeys(kinds, 15)}
    assert groups(out) == 32
    assert any("not binary" in note for note in manifest(out)["warnings"])


def test_broken_and_unbroken(shared_data: Path, convert: Callable[..., Path]) -> None:
    out = convert(shared_data / "broken_unbroken", recipe="insulator")
    assert images(out) == {"broken disc": 10, "none": 10}
    with Image.open(next((out / "images").iterdir())) as image:
        assert image.mode == "RGB"


@pytest.mark.parametrize("format", ["voc", "coco", "yolo", "labelme", "cvat", "labelstudio"])
def test_formats(shared_data: Path, convert: Callable[..., Path], format: str) -> None:
    """Each of them gives the very same pictures, questions and answers."""
    folder = shared_data / "formats"
    options = ["--image-folder", str(folder / "images")]
    out = convert(folder / format, *options)
    assert images(out) == {"defect": 8, "none": 4}
    if format != "voc":
        convert(folder / "voc", *options, output="voc")
        for split in SPLITS:
            assert records(out, split) == records(out.parent / "voc", split)


def test_large_images_become_tiles(
    shared_data: Path, convert: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The set has no annotations; one is drawn here on each picture, the HEIC one too."""
    pytest.importorskip("pillow_heif", reason="HEIC needs pillow-heif: scripts/setup.sh heic")
    photos = tmp_path / "photos"
    photos.mkdir()
    sizes = {"ttpla_26_2970": (3840, 2160), "000001268_fog4": (4928, 3264), "IMG20230605163953": (2352, 3136)}
    drawn = (1000.0, 800.0, 1090.0, 860.0)
    for file in sorted((shared_data / "large").iterdir()):
        shutil.copy(file, photos)
        width, height = sizes[file.stem]
        shape = {"label": "defect", "shape_type": "rectangle", "points": [drawn[:2], drawn[2:]]}
        label = {"imagePath": file.name, "imageWidth": width, "imageHeight": height, "shapes": [shape]}
        (photos / f"{file.stem}.json").write_text(json.dumps(label))
    out = convert(photos, "unit=tile", "tiles.side=1200", "splits.val=0", "splits.test=0")
    tiles = manifest(out)["pictures"]
    assert len({tile["source"] for tile in tiles.values()}) == 3
    asked = [record for record in records(out, "train") if record.meta["task"] == "box"]
    assert len(asked) >= 3
    for record in asked:
        box = parse_box(record.conversations[1].value)
        assert box is not None
        size = (record.meta["width"], record.meta["height"])
        x1, y1, x2, y2 = from_frame(box, *size, record.meta["frame"])
        left, top, right, _ = tiles[record.image]["crop"]
        scale = (right - left) / size[0]
        there = [left + x1 * scale, top + y1 * scale, left + x2 * scale, top + y2 * scale]
        pixel = 0.001 * (right - left)  # three decimals are written
        cut = [max(drawn[0], left), max(drawn[1], top), min(drawn[2], right), drawn[3]]
        assert there == pytest.approx(cut, abs=2 * pixel)

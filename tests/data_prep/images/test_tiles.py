"""Tiles cover a picture, their boxes map back to it, and no tile is asked about what it hardly shows."""

import json
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_prep.__main__ import main as data_prep
from data_prep.annotations import AnnotatedImage, Annotation, Shape
from data_prep.images.store import ImageStore
from data_prep.images.tiles import cut, grid, to_image, visible
from data_prep.images.units import PreparedImage, prepare_image
from data_prep.recipe.schema import Recipe, Tiles
from llava.common.boxes import Box, intersection
from llava.common.files import read_json_list
from llava.common.records import Record
from llava.common.settings import validate_settings


@st.composite
def sizes_and_rules(draw: st.DrawFn) -> tuple[tuple[int, int], Tiles]:
    """Some dozen tiles at most along a side."""
    side, overlap = draw(st.integers(32, 2000)), draw(st.floats(0, 0.9))
    longest = int(side * (1 + 12 * (1 - overlap)))
    size = draw(st.tuples(st.integers(1, longest), st.integers(1, longest)))
    return size, Tiles(side=side, overlap=overlap)


@given(sizes_and_rules())
def test_tiles_cover_the_image_exactly(drawn: tuple[tuple[int, int], Tiles]) -> None:
    (width, height), rule = drawn
    tiles = grid((width, height), rule)
    assert len(set(tiles)) == len(tiles)
    for low, high, length in ((0, 2, width), (1, 3, height)):
        spans = sorted({(tile[low], tile[high]) for tile in tiles})
        assert spans[0][0] == 0 and spans[-1][1] == length
        assert {end - start for start, end in spans} == {min(rule.side, length)}
        assert all(start == int(start) for start, _ in spans)
        for (_, end), (start, _) in pairwise(spans):
            # So that an object no larger than the overlap is whole in a tile.
            assert end - start >= min(rule.overlap * rule.side, rule.side - 1)
    across = {(tile[0], tile[2]) for tile in tiles}
    down = {(tile[1], tile[3]) for tile in tiles}
    assert len(tiles) == len(across) * len(down)


@pytest.mark.parametrize(
    ("box", "share"),
    [
        ((10, 10, 20, 20), 1),  # whole
        ((90, 10, 110, 20), 0.5),  # half of it
        ((-500, 40, 900, 50), 1),  # runs through: a tile could not show more of it
        ((-100, -100, 200, 200), 1),  # fills the tile
        ((-500, 40, 30, 50), 0.3),  # 30 of the 100 pixels that a tile could show
        ((100, 10, 120, 20), 0),  # touches
        ((99.5, 10, 120, 20), 0),  # less than a pixel
        ((10.2, 10.2, 10.6, 10.6), 1),  # itself less than a pixel
    ],
)
def test_visible_share(box: Box, share: float) -> None:
    assert visible(box, (0, 0, 100, 100)) == pytest.approx(share)


@given(st.floats(0, 239), st.floats(0, 239), st.integers(1, 300), st.integers(1, 300))
def test_boxes_map_back(x: float, y: float, width: int, height: int) -> None:
    crop = (100.0, 50.0, 340.0, 290.0)
    placed = (x + 100, y + 50, x + 101, y + 51)
    assert cut(placed, crop) == pytest.approx((x, y, x + 1, y + 1))
    scaled = (x * width / 240, y * height / 240, (x + 1) * width / 240, (y + 1) * height / 240)
    assert to_image(scaled, crop, (width, height)) == pytest.approx(placed)


def recipe(**changes: Any) -> Recipe:
    values: dict[str, Any] = {
        "unit": "tile",
        "components": [{"name": "insulator"}],
        "defects": [{"name": "missing disc"}, {"name": "nest"}],
        "families": {"presence": {"questions": ["Is there a defect?"]}},
    }
    return validate_settings(Recipe, values | changes, "test.yaml")


def tiled(
    file: Path, shapes: list[Shape], made: Recipe, folder: Path, labels: tuple[str, ...] = ()
) -> PreparedImage:
    folder.mkdir(exist_ok=True)
    image = AnnotatedImage(file, "a", [Annotation(file, shapes=tuple(shapes), labels=labels)])
    return prepare_image(image, made, made.known_names(), ImageStore(folder, made.pictures))


def scattered(size: tuple[int, int], count: int) -> Iterator[Shape]:
    rng = np.random.default_rng(5)
    for number in range(count):
        w, h = rng.integers(8, 300, 2)
        x, y = rng.integers(0, size[0] - w), rng.integers(0, size[1] - h)
        name = ("missing disc", "nest", "insulator")[number % 3]
        yield Shape(name, (float(x), float(y), float(x + w), float(y + h)), area=float(w * h) / 2)


def test_tiles_of_an_aerial_image_map_back_exactly(tmp_path: Path) -> None:
    size = (5520, 3680)
    ramp = np.zeros((size[1], size[0], 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(size[0]) // 24, (np.arange(size[1]) // 16)[:, None]
    Image.fromarray(ramp).save(tmp_path / "a.jpg", quality=95)
    shapes = list(scattered(size, 40))
    made = recipe(tiles={"side": 1380}, pictures={"max_side": 690})
    prepared = tiled(tmp_path / "a.jpg", shapes, made, tmp_path / "out")
    whole, *tiles = prepared.units
    assert whole.crop == (0, 0, *size) and whole.size == (690, 460) and whole.name == "a.jpg"
    assert tiles[0].name.startswith("a.jpg (x ") and len({tile.name for tile in tiles}) == len(tiles)
    assert len(whole.defects) + len(whole.components) == 40
    everything = len(grid(size, made.tiles))
    rests = prepared.left_out["tiles that show a rest of something (tiles.min_visible)"]
    assert everything == 5 * 4 and 0 < rests < everything and len(tiles) == everything - rests
    shown = 0
    for unit in tiles:
        assert unit.crop is not None and unit.size == (690, 690)
        boxes = [*unit.components, *unit.defects]
        shown += len(boxes)
        back = {(shape.name, tuple(np.round(unit.in_image(shape.box), 6))) for shape in boxes}
        expected = set()
        for shape in shapes:
            if intersection(shape.box, unit.crop) > 0:
                c = unit.crop
                part = (
                    *(max(shape.box[0], c[0]), max(shape.box[1], c[1])),
                    *(min(shape.box[2], c[2]), min(shape.box[3], c[3])),
                )
                expected.add((shape.name, part))
        assert back == expected
        # The pixels are those of that place: the ramp tells where.
        with Image.open(tmp_path / "out" / unit.image) as image:
            red, green, _ = np.asarray(image)[345, 345].astype(int)
        middle = unit.in_image((345, 345, 346, 346))
        assert abs(red - middle[0] / 24) < 4 and abs(green - middle[1] / 16) < 4
    assert shown > 10
    halved = [shape for unit in tiles for shape in unit.defects if shape.area]
    assert all(s.area == pytest.approx(area_of(s.box) / 2) for s in halved), "an area shrinks with its box"


def area_of(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def test_tiles_of_a_real_image(shared_data: Path, tmp_path: Path) -> None:
    """Each tile holds the pixels of the part of the picture that it says it shows."""
    for file in sorted((shared_data / "large").glob("*.jpg")):
        made = recipe(tiles={"side": 1632, "whole": False}, pictures={"max_side": 1632})
        with Image.open(file) as image:
            image.load()
            boxes = list(scattered(image.size, 6))
            prepared = tiled(file, boxes, made, tmp_path / "out")
            assert len(prepared.units) >= 3
            for unit in prepared.units[:4]:
                assert unit.crop is not None
                with Image.open(tmp_path / "out" / unit.image) as tile:
                    for shape in [Shape("corner", (0, 0, 64, 64)), *unit.defects, *unit.components]:
                        x1, y1, x2, y2 = (round(v) for v in unit.in_image(shape.box))
                        there = np.asarray(image.crop((x1, y1, x2, y2))).astype(float)
                        here = np.asarray(tile.crop(tuple(round(v) for v in shape.box))).astype(float)
                        assert np.abs(there - here).mean() < 4


def test_a_tile_that_shows_a_rest_is_not_asked(tmp_path: Path) -> None:
    Image.new("RGB", (200, 100)).save(tmp_path / "a.png")
    # Tiles 0..100 and 100..200; the box reaches 10% into the right one.
    boxes = [Shape("nest", (10.0, 10.0, 105.0, 60.0))]
    rule = {"side": 100, "overlap": 0, "whole": False}
    strict = tiled(tmp_path / "a.png", boxes, recipe(tiles=rule), tmp_path / "out")
    assert [unit.label for unit in strict.units] == ["nest"]
    assert strict.left_out == {"tiles that show a rest of something (tiles.min_visible)": 1}
    loose = tiled(tmp_path / "a.png", boxes, recipe(tiles=rule | {"min_visible": 0}), tmp_path / "out")
    assert [unit.label for unit in loose.units] == ["nest", "nest"] and not loose.left_out
    assert loose.units[1].defects[0].box == (0, 10, 5, 60)
    # A defect that is a rest in every tile is counted.
    rule = {"side": 100, "overlap": 0, "whole": False, "min_visible": 0.6}
    lost = tiled(
        tmp_path / "a.png", [Shape("nest", (50.0, 10.0, 150.0, 60.0))], recipe(tiles=rule), tmp_path / "out"
    )
    assert not lost.units and lost.left_out["defects in no tile"] == 1


def test_a_defect_without_a_place_is_asked_of_the_whole_image_only(tmp_path: Path) -> None:
    Image.new("RGB", (200, 100)).save(tmp_path / "a.png")
    made = recipe(tiles={"side": 100, "overlap": 0})
    prepared = tiled(tmp_path / "a.png", [], made, tmp_path / "out", labels=("nest",))
    assert [unit.label for unit in prepared.units] == ["nest"] and prepared.units[0].crop == (0, 0, 200, 100)
    assert prepared.left_out == {"pictures not cut, because a defect has no place": 1}
    placed = tiled(tmp_path / "a.png", [Shape("nest", (5, 5, 30, 30))], made, tmp_path / "out", ("nest",))
    assert [unit.label for unit in placed.units] == ["nest", "nest", "none"]
    crops = recipe(unit="object")
    component = Shape("insulator", (0, 0, 90, 90))
    cropped = tiled(tmp_path / "a.png", [component], crops, tmp_path / "out", labels=("nest",))
    assert not cropped.units, "a crop of a defective picture would be called sound"


def test_an_image_no_larger_than_a_tile_is_one_unit(tmp_path: Path) -> None:
    Image.new("RGB", (90, 100)).save(tmp_path / "a.png")
    for whole in (True, False):
        made = recipe(tiles={"side": 100, "whole": whole})
        assert [unit.key for unit in tiled(tmp_path / "a.png", [], made, tmp_path / "out").units] == ["a"]


def test_convert_to_tiles(repo: Path, tmp_path: Path) -> None:
    """End to end: answers agree with what each tile shows, and all of a picture is in one split."""
    source, rng = tmp_path / "photos", np.random.default_rng(0)
    (source / "labels").mkdir(parents=True)
    defect_of = {}
    for number in range(12):
        pixels = Image.fromarray(rng.integers(0, 256, (6, 10, 3), dtype=np.uint8))
        pixels.resize((400, 300), Image.Resampling.BICUBIC).save(source / f"p{number}.jpg")
        x, y = (int(v) for v in (rng.integers(0, 360), rng.integers(0, 260)))
        box = (x, y, x + 40, y + 40)
        defect_of[f"p{number}"] = box if number % 2 else None
        shape = "".join(
            f"<{tag}>{v}</{tag}>" for tag, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        )
        thing = f"<object><name>bird nest</name><bndbox>{shape}</bndbox></object>" if number % 2 else ""
        (source / "labels" / f"p{number}.xml").write_text(
            f"<annotation><filename>p{number}.jpg</filename>{thing}</annotation>"
        )
    output = tmp_path / "out"
    command = ["convert", "--source", source, "--output", output]
    command += ["--recipe", repo / "configs" / "recipes" / "insulator.yaml"]
    data_prep([*map(str, command), "unit=tile", "tiles.side=160", "tiles.overlap=0.3"])
    manifest = json.loads((output / "manifest.json").read_text())
    splits: dict[str, set[str]] = {}
    for image in manifest["pictures"].values():
        splits.setdefault(image["source"], set()).add(image["split"])
    assert len(splits) == 12 and all(len(found) == 1 for found in splits.values())
    answers: Counter[tuple[bool, str]] = Counter()
    for split in ("train", "val", "test"):
        for record in read_json_list(output / f"{split}.json", Record):
            if record.meta["task"] != "presence":
                continue
            image = manifest["pictures"][record.images[0]]
            defect, crop = defect_of[image["source"]], image["crop"]
            seen = defect is not None and intersection(defect, crop) > 0
            assert record.conversations[1].value == ("yes" if seen else "no")
            answers[crop == [0, 0, 400, 300], record.conversations[1].value] += 1
    assert len(answers) == 4, "whole pictures and tiles, sound and not"
    assert manifest["left_out"]["tiles that show a rest of something (tiles.min_visible)"] > 0

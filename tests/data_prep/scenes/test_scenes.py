"""The scene renderer: reproducible, honest shares, boxes that hold exactly what was drawn."""

from collections import Counter
from hashlib import sha256
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from data_prep.__main__ import main
from data_prep.scenes import DEFECTS, STRING, Scene, defects_of, render
from llava.common.errors import InputError

SEED = 11


def with_kind(kind: str, count: int) -> list[int]:
    """The first `count` pictures that show `kind` alone."""
    return [index for index in range(400) if defects_of(SEED, index) == (kind,)][:count]


def changed(scene: Scene, sound: Scene) -> np.ndarray:
    first, second = (np.asarray(s.image, np.int16) for s in (scene, sound))
    return np.abs(first - second).max(axis=2) > 12


def test_any_number_of_workers_writes_the_same_bytes(tmp_path: Path) -> None:
    digests = []
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        arguments = ["--output", str(folder), "--count", "6", "--seed", "3", "--workers", str(workers)]
        assert main(["scenes", *arguments]) == 0
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        digests.append([(str(f.relative_to(folder)), sha256(f.read_bytes()).hexdigest()) for f in files])
    assert len(digests[0]) == 12
    assert digests[0] == digests[1]


def test_seeds_and_indices_are_different_scenes() -> None:
    images = [render(seed, index).image.tobytes() for seed, index in ((1, 0), (1, 1), (2, 0))]
    assert len(set(images)) == 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", DEFECTS)
def test_box_holds_what_the_defect_changed(kind: str) -> None:
    for index in with_kind(kind, 4):
        scene, sound = render(SEED, index), render(SEED, index, with_defect=False)
        (box,) = [box for name, box in scene.objects if name == kind]
        assert [name for name, _ in sound.objects if name != STRING] == []
        difference = changed(scene, sound)
        total = difference.sum()
        assert total > 60, "the defect is hardly visible"
        x1, y1, x2, y2 = box
        # Blur carries a few pixels' worth of change over the drawn edge.
        reach = 3
        difference[max(0, y1 - reach) : y2 + reach, max(0, x1 - reach) : x2 + reach] = False
        assert difference.sum() <= 0.01 * total, f"picture {index}: changes outside {box}"


@pytest.mark.parametrize("kind", ["missing disc", "flashover", "pollution", "bird nest"])
def test_box_is_no_larger_than_the_defect(kind: str) -> None:
    for index in with_kind(kind, 3):
        scene, sound = render(SEED, index), render(SEED, index, with_defect=False)
        (box,) = [box for name, box in scene.objects if name == kind]
        rows, columns = np.nonzero(changed(scene, sound))
        seen = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        assert np.abs(np.subtract(seen, box)).max() <= 14, f"picture {index}: {seen} against {box}"


def test_shares_of_kinds() -> None:
    drawn = [defects_of(5, index) for index in range(400)]
    assert sum(bool(kinds) for kinds in drawn) == 200
    assert sum(len(kinds) == 2 for kinds in drawn) == 20
    assert set(Counter(kinds[0] for kinds in drawn if kinds).values()) == {40}
    assert all(len(set(kinds)) == len(kinds) for kinds in drawn)
    assert not any(defects_of(5, index, 0.0) for index in range(40))
    assert all(defects_of(5, index, 1.0) for index in range(40))
    # What one picture shows does not follow from what its neighbour shows.
    assert drawn[:20] != drawn[20:40]


@pytest.mark.slow
def test_annotations_are_voc_within_bounds(tmp_path: Path) -> None:
    folder, sheet = tmp_path / "scenes", tmp_path / "sheet.png"
    main(["scenes", "--output", str(folder), "--count", "20", "--seed", "8", "--contact-sheet", str(sheet)])
    labels: Counter[str] = Counter()
    for annotation in sorted((folder / "annotations").iterdir()):
        root = ElementTree.parse(annotation).getroot()
        with Image.open(folder / "images" / f"{annotation.stem}.jpg") as image:
            image.load()
            width, height = image.size
        assert root.findtext("filename") == f"{annotation.stem}.jpg"
        assert (root.findtext("size/width"), root.findtext("size/height")) == (str(width), str(height))
        names = [item.findtext("name", "") for item in root.iter("object")]
        assert names[0] == STRING
        labels.update(names)
        for item in root.iter("object"):
            x1, y1, x2, y2 = (int(item.findtext(f"bndbox/{t}", "")) for t in ("xmin", "ymin", "xmax", "ymax"))
            assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
            assert min(x2 - x1, y2 - y1) >= 5, f"{annotation.name}: a sliver"
    assert set(labels) == {STRING, *DEFECTS}
    with Image.open(sheet) as image:
        image.load()


@pytest.mark.slow
def test_the_string_is_the_subject() -> None:
    for index in range(12):
        scene = render(SEED, index, with_defect=False)
        x1, y1, x2, y2 = scene.objects[0][1]
        assert np.hypot(x2 - x1, y2 - y1) >= 0.6 * max(scene.image.size)


def test_bad_input_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    output = tmp_path / "scenes"
    for extra in (
        ["--count", "0"],
        ["--seed", "-1"],
        ["--defect-share", "1.5"],
        ["--contact-sheet", "a.jpg"],
    ):
        with pytest.raises(InputError):
            main(["scenes", "--output", str(output), *extra])
    assert not output.exists()
    output.mkdir()
    with pytest.raises(InputError, match="exists already"):
        main(["scenes", "--output", str(output), "--count", "1"])
    assert list(tmp_path.iterdir()) == [output]

"""What is painted or cut out by hand comes as files that `convert` reads, exact to the pixel."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

from data_prep.__main__ import main as data_prep
from data_prep.formats.labelme import read_annotation
from data_prep.synthetic import read_synthetic
from llava.common.errors import InputError
from llava.common.files import read_json, read_json_list, sha256
from llava.common.images import open_image
from llava.common.masks import Mask, Pixels, box_mask, load_mask
from llava.common.records import Record
from llava.common.synthetic import Parent
from llava.painting.diffusion import Wish
from llava.painting.labels import MadeFiles, labelme_file, labelme_shape, made_zip, make_files
from tests.support.commands import run_here
from tests.support.photos import write_photos

BURN = (20.0, 12.0, 32.0, 22.0)


def painted(photo: Path, kind: str | None = "flashover", invert: bool = False) -> tuple[MadeFiles, Pixels]:
    """A picture that is as black as can be where it was painted."""
    pixels = np.asarray(open_image(photo))
    wish = Wish(pixels, box_mask(BURN, pixels.shape[:2]), "a burn", seed=7, invert=invert)
    result = np.where(wish.painted[..., None], 255 - pixels // 2, pixels).astype(np.uint8)
    parent = Parent(name=photo.name, sha256=sha256(photo))
    files = make_files(wish, result, parent, {"steps": 3})
    return (files if kind is None else files.of_kind(kind)), result


def unpack(folder: Path, pictures: list[MadeFiles]) -> Path:
    with ZipFile(BytesIO(made_zip(pictures))) as archive:
        archive.extractall(folder)
    return folder / "made"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos") / "set", 40)


def test_the_folder_holds_what_was_painted(photos: Path, tmp_path: Path) -> None:
    first, second = sorted((photos / "images").glob("*.jpg"))[:2]
    burn, result = painted(first)
    background, _ = painted(second, kind=None, invert=True)
    folder = unpack(tmp_path, [burn, background, burn])
    content = read_synthetic(folder)
    assert [image.file_name for image in content.images] == [
        "images/00001_flashover.png",
        "images/00002_background.png",
        "images/00003_flashover.png",
    ]
    assert np.array_equal(open_image(folder / content.images[0].file_name), result)
    facts = content.images[0].synthetic
    assert (facts.kind, facts.prompt, facts.seed, facts.adds_labels) == ("flashover", "a burn", 7, True)
    assert facts.parents == [Parent(name=first.name, sha256=sha256(first))]
    assert np.array_equal(load_mask(folder / facts.mask), box_mask(BURN, result.shape[:2]))
    kept = load_mask(folder / content.images[1].synthetic.mask)
    assert np.array_equal(kept, ~box_mask(BURN, result.shape[:2]))
    assert [(one.id, one.image_id, one.box, one.made) for one in content.annotations] == [
        (1, 1, BURN, True),
        (2, 3, BURN, True),
    ]


def test_convert_trains_on_it_beside_the_labels_of_the_photos(photos: Path, tmp_path: Path) -> None:
    pictures = [painted(photo)[0] for photo in sorted((photos / "images").glob("*.jpg"))]
    folder = unpack(tmp_path, pictures)
    done = run_here(
        data_prep, "convert", "--source", photos, "--recipe", "insulator", "--output", tmp_path / "out",
        "--synthetic", folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    records = [
        record for record in read_json_list(tmp_path / "out" / "train.json", Record) if record.is_synthetic
    ]
    assert records and {record.meta["method"] for record in records} == {"diffuse"}
    used = read_json(tmp_path / "out" / "manifest.json")["synthetic"]
    assert used["kinds"] == {"flashover": used["pictures"]} and used["pictures"] > 10


def test_nothing_changed_is_no_label(photos: Path) -> None:
    pixels = np.full((20, 30, 3), 90, np.uint8)
    wish = Wish(pixels, np.ones((20, 30), bool), "a burn", seed=1)
    with pytest.raises(InputError, match="nothing changed: paint it again"):
        make_files(wish, pixels + 5, Parent(name="a.jpg", sha256="0" * 64), {})


def test_labelme_s_form_is_exact(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    masks: list[Mask] = [box_mask((3, 4, 9, 11), (40, 60)), rng.random((40, 60)) > 0.7]
    masks[1][:, :20] = False
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    file = tmp_path / "a.json"
    things = [labelme_shape("nest", masks[0]), labelme_shape("rust", masks[1])]
    file.write_text(labelme_file("a.png", (60, 40), things), "utf-8")
    annotation = read_annotation(file)
    assert annotation.image == "a.png" and annotation.size == (60, 40)
    nest, rust = annotation.shapes
    assert (nest.name, nest.box, nest.area) == ("nest", (3, 4, 9, 11), 42)
    assert (rust.name, rust.area) == ("rust", masks[1].sum())
    shapes: list[dict[str, Any]] = read_json(file)["shapes"]
    assert [shape["shape_type"] for shape in shapes] == ["mask", "mask"]

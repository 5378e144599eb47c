"""`python -m data_prep inspect` as a user meets it."""

import os
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import pytest
from PIL import Image

from data_prep.__main__ import main as data_prep
from llava.common.errors import InputError
from tests.support.html_page import HOSTILE, check_alone
from tests.support.photos import needs_bytes_as_names, write_photos


def inspect(source: Path, output: Path, *more: str) -> str:
    """The page, parsed: what its text says."""
    assert data_prep(["inspect", "--source", str(source), "--output", str(output), *more]) == 0
    return check_alone(output.read_text(encoding="utf-8")).text


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos", count=12)


def test_a_folder_is_shown_without_a_recipe(photos: Path, tmp_path: Path) -> None:
    text = inspect(photos, tmp_path / "report.html")
    assert "format voc" in text and "annotated pictures 12" in text and "boxes 20" in text
    assert "insulator 12 12" in text  # as written: objects, pictures with it
    assert "80 x 48 12 100%" in text
    assert "Nothing was left out or changed." in text
    assert "taken as" not in text


def test_a_recipe_says_what_becomes_of_the_names(photos: Path, repo: Path, tmp_path: Path) -> None:
    xml = next((photos / "annotations").glob("pollution*.xml"))
    xml.write_text(xml.read_text().replace("<name>pollution", "<name>polution"))
    recipe = repo / "configs" / "recipes" / "insulator.yaml"
    text = inspect(photos, tmp_path / "report.html", "--recipe", str(recipe))
    assert "polution unknown to the recipe; the nearest name it has is 'pollution'" in text
    assert "1 class name(s) that the recipe does not know" in text
    assert "missing disc defect: missing disc" in text and "insulator component: insulator" in text


def test_overrides_change_the_recipe(photos: Path, repo: Path, tmp_path: Path) -> None:
    recipe = repo / "configs" / "recipes" / "insulator.yaml"
    more = ("--recipe", str(recipe), "ignore=[tower]")
    xml = next((photos / "annotations").glob("sound*.xml"))
    xml.write_text(xml.read_text().replace("<name>insulator", "<name>tower"))
    assert "tower passed over (sound or ignore)" in inspect(photos, tmp_path / "report.html", *more)


def test_damaged_images_and_annotations_are_listed(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, *_ = sorted((photos / "images").glob("*.jpg"))
    first.write_bytes(first.read_bytes()[:400])
    (photos / "annotations" / f"{second.stem}.xml").write_text("<annotation><object>")
    Image.new("RGB", (9, 9)).save(photos / "images" / "alone.png")
    text = inspect(photos, tmp_path / "report.html")
    shown = capsys.readouterr().out
    for said in (text, shown):
        assert f"{first.name}: the picture is damaged or cut short" in said
        assert f"{second.stem}.xml" in said and "not valid XML" in said
    assert "cannot be read 1" in text and "images/alone.png" in text
    assert "1 picture(s) cannot be used" in text and "1 annotation problem(s)" in text


@needs_bytes_as_names
def test_a_name_that_is_not_utf8_is_listed(photos: Path, tmp_path: Path) -> None:
    first = min((photos / "images").iterdir())
    first.rename(os.fsdecode(os.fsencode(first.with_name("caf")) + b"\xe9.jpg"))
    text = inspect(photos, tmp_path / "report.html")
    assert "caf\\udce9.jpg: its name is not UTF-8; rename it" in text
    assert "2 annotation problem(s)" in text, "the name, and the XML that has lost its picture"
    assert "annotated pictures 11" in text


def test_groups_of_the_source_are_counted(photos: Path, tmp_path: Path) -> None:
    before = inspect(photos, tmp_path / "report.html")
    assert "independent groups 12" in before
    for name, file in zip(("one", "two", "three"), sorted((photos / "images").iterdir()), strict=False):
        version = f"tower_jpg.rf.{name}"
        (photos / "annotations" / f"{file.stem}.xml").rename(photos / "annotations" / f"{version}.xml")
        file.rename(file.with_name(f"{version}.jpg"))
    assert "independent groups 10" in inspect(photos, tmp_path / "report.html")


def test_what_was_put_right_is_told(photos: Path, tmp_path: Path) -> None:
    xml = next((photos / "annotations").glob("sound*.xml"))
    xml.write_text(xml.read_text().replace("<xmax>75", "<xmax>95"))
    assert "box of 'insulator' reached outside; clipped" in inspect(photos, tmp_path / "report.html")


@pytest.mark.parametrize("damage", [b"", b"\xff\xd8\xff\xe0 no more"])
def test_nothing_to_look_at_is_an_error(damage: bytes, tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", count=3)
    for image in (photos / "images").iterdir():
        image.write_bytes(damage)
    with pytest.raises(InputError, match="no picture can be read"):
        data_prep(["inspect", "--source", str(photos), "--output", str(tmp_path / "report.html")])
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--output", "report.xml"), "name the page to write"),
        ((), "name what to write: --output report.html, --write-recipe my.yaml or both"),
        (("--output", "r.html", "--model", "some/thing"), "--model some/thing: no such folder"),
        (("--write-recipe", "r.yaml", "--recipe", "defect"), "leave out --recipe"),
        (("--write-recipe", "r.txt"), "such as my.yaml"),
        (("--output", "r.html", "splits.test=0.2"), "no --recipe is given"),
    ],
)
def test_wrong_options_are_refused(photos: Path, more: tuple[str, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        data_prep(["inspect", "--source", str(photos), *more])


def test_box_sizes_are_judged_by_the_model_that_is_named(photos: Path, tmp_path: Path) -> None:
    text = inspect(photos, tmp_path / "report.html")
    assert "box sizes judged by tiny-llava (144 pixels, patch 12)" in text, (
        "the one that is trained by default"
    )
    own = text.index("tiny-llava sees them: picture padded to a square of 144 pixels, patch 12")
    usual = text.index("LLaVA-1.5 sees them: picture padded to a square of 336 pixels, patch 14")
    assert own < usual < text.index("LLaVA-1.6 sees them: picture fitted into 672 x 672 pixels")
    text = inspect(photos, tmp_path / "report.html", "--model", "llava15_7b_lora")
    assert "box sizes judged by llava-1.5-7b-hf (336 pixels, patch 14)" in text and "144" not in text


def test_images_without_annotations(tmp_path: Path, repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = write_photos(tmp_path / "photos", count=3) / "images"
    with Image.open(photos / "sound_000.jpg") as image:
        image.save(photos / "twin.png")
    recipe = ("--recipe", str(repo / "configs" / "recipes" / "insulator.yaml"))
    for more in ((), recipe):
        text = inspect(photos, tmp_path / "report.html", *more)
        assert "no picture is annotated: convert needs annotations" in text
        assert "annotated pictures 0" in text and "without annotation 4" in text and "80 x 48 4 100%" in text
        assert "Copies (turned and mirrored ones too): 2 pictures" in text and "independent groups 3" in text
    assert "no annotations in a format known here" in capsys.readouterr().out
    with pytest.raises(InputError, match="no Pascal VOC annotations"):
        inspect(photos, tmp_path / "report.html", "--format", "voc")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such file names")
def test_hostile_names_of_files_and_classes(tmp_path: Path) -> None:
    names = [name.replace("/", "-").replace("\x00", "") for name in HOSTILE]
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, name in enumerate(names):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
        kind = escape("".join(char for char in name if char.isprintable()))
        (folder / f"{name}.xml").write_text(
            f"<annotation><object><name>{kind}</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>30</xmax>"
            f"<ymax>30</ymax></bndbox></object></annotation>"
        )
    (folder / "<script>alert(2).png").write_bytes(b"no picture")
    (folder / "<script>alert(2).xml").write_text("<annotation/>")
    text = inspect(folder, tmp_path / "report.html")
    assert text.count("<script>alert(1)<-script>") >= 3
    assert "<script>alert(2).png: not a picture" in text


def test_known_twins_of_real_photos_are_side_by_side(shared_data: Path, tmp_path: Path) -> None:
    text = inspect(shared_data / "cplid" / "Normal_Insulators", tmp_path / "report.html")
    assert "Copies (turned and mirrored ones too): 6 pictures" in text
    for first, second in (("0150", "2984"), ("0852", "1876"), ("1608", "1938")):
        assert f"images/{first} images/{second}" in text


def test_thin_defects_of_real_photos_are_warned_of(shared_data: Path, repo: Path, tmp_path: Path) -> None:
    formats = shared_data / "formats"
    more = ("--image-folder", str(formats / "images"), "--recipe", str(repo / "configs/recipes/defect.yaml"))
    text = inspect(formats / "voc", tmp_path / "report.html", *more)
    assert "of 8 defects (100%) are thinner than one 12-pixel patch" in text
    assert "crop around each component (unit: object in the recipe)" in text

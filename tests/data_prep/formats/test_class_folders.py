"""A folder per class."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_prep.__main__ import main as data_prep
from data_prep.annotations import AnnotatedSource
from data_prep.formats import NoFormatError, class_folders, find_reader
from data_prep.source_folder import SourceFolder
from llava.common.errors import InputError

Put = Callable[..., None]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Makes files below tmp_path; no reader of this format looks into them."""

    def write(*names: str, text: str = "") -> None:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


def read(folder: Path) -> AnnotatedSource:
    source, problems = class_folders.read(SourceFolder.scan(folder))
    assert problems == []
    return source


def detected(folder: Path) -> bool:
    return class_folders.detect(SourceFolder.scan(folder)) is not None


def test_folders_below_the_root(tmp_path: Path, put: Put) -> None:
    put("Broken disc/1.jpg", "Broken disc/2.PNG", "good/1.jpg", "README.txt")
    source = read(tmp_path)
    assert [(image.key, *image.annotations[0].labels) for image in source.images] == [
        ("Broken disc/1", "Broken disc"),
        ("Broken disc/2", "Broken disc"),
        ("good/1", "good"),
    ]
    assert {image.split for image in source.images} == {None}
    assert find_reader(SourceFolder.scan(tmp_path)) == (
        class_folders,
        "pictures in 2 folders named Broken disc, good",
    )


def test_folders_below_splits(tmp_path: Path, put: Put) -> None:
    put("train/a/1.jpg", "train/b/2.jpg", "Valid/a/3.jpg", "test/b/4.jpg", "c/5.jpg")
    source = read(tmp_path)
    assert {image.key: (image.annotations[0].labels, image.split) for image in source.images} == {
        "train/a/1": (("a",), "train"),
        "train/b/2": (("b",), "train"),
        "Valid/a/3": (("a",), "val"),
        "test/b/4": (("b",), "test"),
        "c/5": (("c",), None),
    }


def test_folders_below_other_folders(tmp_path: Path, put: Put) -> None:
    put("set/set/train/bad/1.jpg", "set/set/test/good/2.jpg", "other/bad/3.jpg", "LICENSE.txt")
    assert detected(tmp_path)
    assert {image.key: (image.annotations[0].labels, image.split) for image in read(tmp_path).images} == {
        "set/set/train/bad/1": (("bad",), "train"),
        "set/set/test/good/2": (("good",), "test"),
        "other/bad/3": (("bad",), None),
    }


def test_figures_of_a_repository_are_no_class(tmp_path: Path, put: Put) -> None:
    put("dataset/bad/1.jpg", "dataset/good/2.jpg", "docs/figure.png", "assets/icons/logo.png")
    assert detected(tmp_path)
    source = read(tmp_path)
    assert [image.key for image in source.images] == ["dataset/bad/1", "dataset/good/2"]
    assert [path.name for path in source.unannotated] == ["logo.png", "figure.png"]


def test_versions_of_one_photo_are_one_group(tmp_path: Path, put: Put) -> None:
    put("a/tower_jpg.rf.0f2c.jpg", "b/tower_jpg.rf.99aa.jpg", "b/2.jpg")
    assert [image.group for image in read(tmp_path).images] == ["tower", None, "tower"]


def test_images_elsewhere_have_no_class(tmp_path: Path, put: Put) -> None:
    put("a/1.jpg", "b/2.jpg")
    assert detected(tmp_path)
    put("cover.jpg", "train/3.jpg", "a/close/4.jpg")
    source = read(tmp_path)
    assert [image.key for image in source.images] == ["a/1", "b/2"]
    assert len(source.unannotated) == 3
    assert not detected(tmp_path), "auto does not guess; --format class_folders reads it"


@pytest.mark.parametrize(
    ("names", "claimed"),
    [
        (["a/1.jpg", "b/2.jpg"], True),
        (["a/1.jpg", "b/2.jpg", "LICENSE.txt", "notes/read.md"], True),
        (["images/1.jpg"], False),
        (["1.jpg", "2.jpg"], False),
        ([], False),
        (["a/1.jpg", "b/2.jpg", "a/1.xml"], False),
        (["a/1.jpg", "b/2.jpg", "labels.json"], False),
        (["a/1.jpg", "b/2.jpg", "labels.csv"], False),
        (["a/1.jpg", "b/2.jpg", "labels/1.txt"], False),
        (["a/1.jpg", "b/2.jpg", "classes.txt"], False),
        (["train/good/1.jpg", "test/bent/2.jpg", "ground_truth/bent/2_mask.png"], False),
        (["train/good/1.jpg", "test/bent/2.jpg"], True),
        (["image/1.jpg", "image/2.jpg", "masks/1.png", "masks/2.png"], False),
        (["images/1.jpg", "images/2.jpg", "masks/1_mask.png", "masks/2_mask.png"], False),
        (["train/images/1.jpg", "train/labels/1.png", "val/images/2.jpg", "val/labels/2.png"], False),
        (["JPEGImages/1.jpg", "SegmentationClass/1.png", "SegmentationObject/1.png"], False),
        (["tiles/1.jpg", "tiles/2.jpg", "drawn/1.png", "drawn/2.png"], False),
        # Classes whose images are numbered alike, also of masks that people wear.
        (["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"], True),
        (["a/1.jpg", "a/2.png", "b/1.png", "b/2.jpg"], True),
        (["with_mask/1.jpg", "with_mask/2.jpg", "without_mask/1.jpg", "without_mask/2.jpg"], True),
    ],
)
def test_only_folders_without_other_annotations_are_claimed(
    tmp_path: Path, put: Put, names: list[str], claimed: bool
) -> None:
    put(*names)
    assert detected(tmp_path) == claimed


@pytest.mark.parametrize("beside", ["counts.csv", "dataset-metadata.json", "overview.jpg"])
def test_what_lies_beside_is_no_dead_end(tmp_path: Path, put: Put, beside: str) -> None:
    put("a/1.jpg", "b/2.jpg")
    put(beside, text="{}")
    with pytest.raises(
        NoFormatError, match=r"if the folders of pictures \(a, b\) are classes: --format class_"
    ):
        find_reader(SourceFolder.scan(tmp_path))


def test_images_in_a_folder_of_their_own(tmp_path: Path, put: Put) -> None:
    put("pictures/a/1.jpg", "pictures/b/2.jpg", "empty/x.md")
    folder = SourceFolder.scan(tmp_path / "empty", tmp_path / "pictures")
    assert [image.key for image in class_folders.read(folder)[0].images] == ["a/1", "b/2"]


def test_nothing_to_read(tmp_path: Path, put: Put) -> None:
    put("1.jpg")
    with pytest.raises(InputError, match="no pictures in class folders"):
        read(tmp_path)


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=8).filter(
    lambda name: not name.startswith(".")
)


@given(st.lists(st.lists(NAMES, max_size=3), max_size=6))
def test_any_names_are_placed_or_left_alone(paths: list[list[str]]) -> None:
    root = Path("root")
    files = tuple(sorted({root.joinpath(*path, "p.jpg") for path in paths}))
    folder = SourceFolder(root, files, root, files)
    class_folders.detect(folder)
    try:
        source, _ = class_folders.read(folder)
    except InputError:
        assert not any(len(path.parts) == 3 for path in files if path.parts[1].casefold() not in ("test",))
        return
    assert sorted([*(image.file for image in source.images), *source.unannotated]) == list(files)
    for image in source.images:
        assert image.annotations[0].labels == (image.file.parent.name,)


def convert(source: Path, output: Path, repo: Path, *overrides: str) -> dict:
    recipe = output.parent / "recipe.yaml"
    recipe.write_text(
        "defects: [{name: broken disc, aliases: [broken]}]\n"
        "families:\n"
        "  presence: {questions: [Is there a defect?, Is it damaged?]}\n"
        "  kind: {questions: [What is wrong?, Name the defect.]}\n"
        "  where: {questions: [Where is it?, In which part?]}\n"
    )
    arguments = ["--source", str(source), "--recipe", str(recipe), "--output", str(output), *overrides]
    assert data_prep(["convert", "--workers", "1", *arguments]) == 0
    return json.loads((output / "manifest.json").read_text())


def test_labels_become_questions(tmp_path: Path, repo: Path) -> None:
    for index in range(12):
        kind = ("broken", "unbroken")[index % 2]
        path = tmp_path / "photos" / kind / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((40, 30), 60 + index).save(path)
    manifest = convert(tmp_path / "photos", tmp_path / "out", repo)
    answers = {
        (record["meta"]["source"].split("/")[0], record["meta"]["task"]): record["conversations"][1]["value"]
        for record in json.loads((tmp_path / "out" / "train.json").read_text())
    }
    assert answers == {
        ("broken", "presence"): "yes",
        ("unbroken", "presence"): "no",
        ("broken", "kind"): "broken disc",
        ("unbroken", "kind"): "none",
    }
    assert sum(part["labels"]["broken disc"] for part in manifest["splits"].values()) == 6


def test_real_discs(shared_data: Path, tmp_path: Path, repo: Path) -> None:
    """Bursts of one minute are one group; the transparent images come out as they look."""
    manifest = convert(
        shared_data / "broken_unbroken", tmp_path / "out", repo, "group.pattern='IMG(\\d{12})'"
    )
    images = manifest["pictures"].values()
    assert len(images) == 20
    split_of = {image["source"].split("/")[1]: image["split"] for image in images}
    for burst in (
        ("IMG20230605162924_01", "IMG20230605162925", "IMG20230605162926_01"),
        ("IMG20230605171024", "IMG20230605171028", "IMG20230605171030"),
    ):
        assert len({split_of[name] for name in burst}) == 1
    assert all(set(part["labels"]) == {"broken disc", "none"} for part in manifest["splits"].values())

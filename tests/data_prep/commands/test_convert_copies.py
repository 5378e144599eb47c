"""A picture that is there twice: kept once, or not at all where its copies contradict each other."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_prep.__main__ import main as data_prep
from llava.common.files import read_json
from tests.support.photos import write_pair, write_photos

SEED = 500  # of a picture that no other has
NEST = ("bird nest", (10, 10, 30, 30))
ONE = ("insulator", (5, 5, 75, 43))


@pytest.fixture
def manifest_with(repo: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """The manifest for 24 photos and copies of one more, each with its boxes."""

    def convert(*copies: Any, test_copies: Any = ()) -> dict[str, Any]:
        photos, other = write_photos(tmp_path / "photos", 24), write_photos(tmp_path / "other", 9, seed=7)
        for folder, boxes in ((photos, copies), (other, test_copies)):
            for number, shapes in enumerate(boxes):
                write_pair(folder, f"copy_{number}", shapes, SEED)
        options = ["--recipe", str(repo / "configs" / "recipes" / "insulator.yaml")]
        options += ["--source", str(photos), "--output", str(tmp_path / "out")]
        assert data_prep(["convert", *options, *(["--test-source", str(other)] if test_copies else [])]) == 0
        manifest: dict[str, Any] = read_json(tmp_path / "out" / "manifest.json")
        return manifest

    return convert


def sources(manifest: dict[str, Any]) -> set[str]:
    return {facts["source"] for facts in manifest["pictures"].values()}


def test_copies_annotated_alike_are_one(manifest_with: Callable[..., dict[str, Any]]) -> None:
    """In another order, and a pixel off, as another tool rounds."""
    manifest = manifest_with([ONE, NEST], [("bird nest", (10, 11, 30, 29)), ONE])
    assert "images/copy_0" in sources(manifest) and "images/copy_1" not in sources(manifest)
    assert manifest["left_out"]["copies of another picture"] == 1
    assert "images/copy_1: left out, the same picture as images/copy_0" in manifest["warnings"]


@pytest.mark.parametrize(
    "other", [[], [ONE], [ONE, ("flashover", NEST[1])], [ONE, ("bird nest", (10, 10, 33, 30))]]
)
def test_copies_that_contradict_each_other_are_left_out(
    manifest_with: Callable[..., dict[str, Any]], other: Any
) -> None:
    manifest = manifest_with([ONE, NEST], [ONE, NEST], other)
    assert not {name for name in sources(manifest) if "copy" in name}
    assert manifest["left_out"] == manifest["left_out"] | {
        "copies of one picture that are annotated differently": 3
    }
    (note,) = (text for text in manifest["warnings"] if "differently" in text)
    assert note.startswith("images/copy_0, images/copy_1, images/copy_2: left out")


def test_neither_trains_nor_tests(manifest_with: Callable[..., dict[str, Any]]) -> None:
    manifest = manifest_with([ONE, NEST], test_copies=[[ONE]])
    assert not {name for name in sources(manifest) if "copy" in name}


def test_an_image_in_the_folders_of_two_classes_is_left_out(repo: Path, tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "made", 40) / "images"
    for number, photo in enumerate(sorted(photos.iterdir())):
        for name in ["nest", "good"][number % 2 :][: 2 if number == 0 else 1]:
            (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / "photos" / name / photo.name).write_bytes(photo.read_bytes())
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "defects: [{name: nest}]\nsound: [good]\nfamilies: {presence: {questions: ['Is there a nest?']}}\n"
    )
    command = ["convert", "--source", str(tmp_path / "photos"), "--recipe", str(recipe)]
    assert data_prep([*command, "--output", str(tmp_path / "out")]) == 0
    manifest = read_json(tmp_path / "out" / "manifest.json")
    assert manifest["left_out"]["copies of one picture that are annotated differently"] == 2
    first = min(photos.iterdir()).stem
    assert len(sources(manifest)) > 30 and not {f"nest/{first}", f"good/{first}"} & sources(manifest)

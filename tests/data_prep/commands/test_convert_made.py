"""`convert --synthetic`: made pictures are trained on beside their photos, and never tested on."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_prep.__main__ import main as data_prep
from data_prep.commands.convert import prepare_all, read_sources
from data_prep.images.store import ImageStore
from data_prep.made_folders import open_made_folders
from data_prep.made_pictures import with_labels_of_parents
from data_prep.recipe.schema import Recipe
from data_prep.source_folder import SourceFolder
from llava.common.errors import InputError
from llava.common.files import read_json, read_json_list, read_jsonl, sha256
from llava.common.masks import save_mask
from llava.common.records import Record, Truth
from llava.common.settings import load_settings
from llava.common.shipped import find_recipe
from tests.support.commands import run_here
from tests.support.made_folder import Made, write_made
from tests.support.photos import Boxes, write_boxes, write_photos

HELD_OUT_FILES = ("val.json", "test.json", "questions_test.jsonl")
Convert = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos") / "set", 40)


@pytest.fixture(scope="module")
def plain(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The conversion without made pictures."""
    output = tmp_path_factory.mktemp("plain") / "out"
    assert run(photos, output).returncode == 0
    return output


@pytest.fixture(scope="module")
def made(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made picture of each photo."""
    folder = tmp_path_factory.mktemp("made") / "made"
    return write_made(folder, [Made(photo) for photo in jpegs(photos)])


@pytest.fixture(scope="module")
def both(photos: Path, made: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The conversion with them, and what it printed."""
    output = tmp_path_factory.mktemp("both") / "out"
    done = run(photos, output, "--synthetic", made)
    assert done.returncode == 0, done.stderr
    return output, done.stdout


def run(source: Path, output: Path, *more: object, recipe: str = "insulator") -> CompletedProcess[str]:
    return run_here(data_prep, "convert", "--source", source, "--recipe", recipe, "--output", output, *more)


def jpegs(photos: Path) -> list[Path]:
    return sorted((photos / "images").glob("*.jpg"))


def pictures(output: Path) -> dict[str, dict[str, Any]]:
    """Return the manifest's facts of each picture, by its name in the output."""
    found: dict[str, dict[str, Any]] = read_json(output / "manifest.json")["pictures"]
    return found


def split_of_photo(output: Path) -> dict[str, str]:
    """Return the split of each real photo, by its file's stem."""
    return {
        Path(facts["source"]).name: facts["split"]
        for facts in pictures(output).values()
        if "synthetic" not in facts
    }


def train(output: Path) -> list[Record]:
    return read_json_list(output / "train.json", Record)


def made_records(output: Path) -> list[Record]:
    return [record for record in train(output) if record.is_synthetic]


def left_out(output: Path) -> dict[str, int]:
    return {
        reason: count
        for reason, count in read_json(output / "manifest.json")["left_out"].items()
        if reason.startswith("made pictures")
    }


def test_the_splits_of_photos_are_those_without_made_pictures(plain: Path, both: tuple[Path, str]) -> None:
    output, _ = both
    before, after = split_of_photo(plain), split_of_photo(output)
    # Balance may ask other training photos; what is held out is the same to the byte.
    assert all(before[name] == split for name, split in after.items() if name in before)
    held_out = {name for name, split in before.items() if split != "train"}
    assert held_out == {name for name, split in after.items() if split != "train"}
    for name in HELD_OUT_FILES:
        assert (output / name).read_bytes() == (plain / name).read_bytes(), name
    truths = [read_jsonl(folder / "truth_test.jsonl", Truth) for folder in (plain, output)]
    for truth in (*truths[0], *truths[1]):
        truth.meta.pop("blind", None)  # what the questions of train tell by themselves
    assert truths[0] == truths[1]


def test_only_those_of_training_photos_are_used_and_the_others_counted(
    plain: Path, both: tuple[Path, str]
) -> None:
    output, printed = both
    held_out = [name for name, split in split_of_photo(plain).items() if split != "train"]
    assert left_out(output) == {"made pictures of a photo that is held out": len(held_out)}
    assert f"{len(held_out)} made pictures of a photo that is held out" in printed
    for name, facts in pictures(output).items():
        assert facts["split"] == "train" or "synthetic" not in facts, name
    shown = {image for record in made_records(output) for image in record.images}
    assert shown == {name for name, facts in pictures(output).items() if "synthetic" in facts} != set()


def test_records_say_how_their_pictures_were_made(photos: Path, both: tuple[Path, str]) -> None:
    output, _ = both
    file_of = {sha256(path): path.stem for path in jpegs(photos)}
    splits = split_of_photo(output)
    for record in made_records(output):
        (parent,) = record.meta["parents"]
        assert record.meta["synthetic"] is True and record.meta["method"] == "paste"
        assert splits.get(file_of[parent], "train") == "train"
        assert record.meta["groups"] == [record.meta["group"]]
        with Image.open(output / record.images[0]) as image:
            assert image.format == "JPEG", "no codec tells made pictures from photos"
    of_photos = [record.meta for record in train(output) if not record.is_synthetic]
    assert not any({"synthetic", "method", "parents"} & meta.keys() for meta in of_photos)
    asked = {record.meta["task"]: record for record in made_records(output)}
    assert {"presence", "dialogue"} <= asked.keys()


def test_the_run_the_manifest_and_the_report_count_them(made: Path, both: tuple[Path, str]) -> None:
    output, printed = both
    facts = read_json(output / "manifest.json")["synthetic"]
    used = sum("synthetic" in picture for picture in pictures(output).values())
    in_train = sum(picture["split"] == "train" for picture in pictures(output).values())
    assert facts["pictures"] == facts["methods"]["paste"] == facts["kinds"]["broken disc"] == used
    assert facts["share"] == round(used / in_train, 4)
    (folder,) = facts["folders"]
    assert folder["folder"] == str(made) and folder["sha256"] == sha256(made / "synthetic.json")
    assert (folder["pictures"], folder["used"]) == (40, used)
    counted = f"{used} of {in_train} ({used / in_train:.0%}): {used} by paste, {used} broken disc"
    assert f"made pictures in train: {counted}" in printed
    report = (output / "report.html").read_text()
    assert "made pictures in train" in report and counted in report


def test_without_the_flag_nothing_is_said_of_made_pictures(plain: Path) -> None:
    assert read_json(plain / "manifest.json")["synthetic"] is None
    assert "made pictures" not in (plain / "report.html").read_text()


def test_the_same_bytes_come_again(photos: Path, made: Path, both: tuple[Path, str], tmp_path: Path) -> None:
    assert run(photos, tmp_path / "out", "--synthetic", made, "--workers", 3).returncode == 0
    for name in ("train.json", "manifest.json"):
        first, second = (folder / name for folder in (both[0], tmp_path / "out"))
        assert first.read_text() == second.read_text().replace(str(tmp_path / "out"), str(both[0])), name


def test_an_earlier_output_is_continued(photos: Path, made: Path, plain: Path, tmp_path: Path) -> None:
    shutil.copytree(plain, tmp_path / "out")
    assert run(photos, tmp_path / "out", "--synthetic", made, "--overwrite").returncode == 0
    assert made_records(tmp_path / "out")
    assert run(photos, tmp_path / "out", "--overwrite").returncode == 0
    for name in ("train.json", *HELD_OUT_FILES):
        assert (tmp_path / "out" / name).read_bytes() == (plain / name).read_bytes()


def test_a_picture_of_a_held_out_donor_is_left_out(photos: Path, plain: Path, tmp_path: Path) -> None:
    splits = split_of_photo(plain)
    trained = [path for path in jpegs(photos) if splits.get(path.stem) == "train"]
    tested = next(path for path in jpegs(photos) if splits.get(path.stem) == "test")
    folder = write_made(tmp_path / "made", [Made(trained[0], donors=[tested])])
    done = run(photos, tmp_path / "out", "--synthetic", folder)
    assert not made_records(tmp_path / "out")
    assert left_out(tmp_path / "out") == {"made pictures of a photo that is held out": 1}
    assert "none of its 1 made pictures is used" in done.stdout


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("broken disc", ["insulator", "string", "flashover", "broken disc"]),
        (None, ["insulator", "flashover"]),  # a new background covers components too
    ],
)
def test_the_labels_of_the_photo_are_added_where_the_file_has_none(
    kind: str | None, named: list[str], tmp_path: Path
) -> None:
    boxes: Boxes = [
        ("insulator", (5, 5, 75, 43)),
        ("string", (20, 13, 31, 22)),
        ("flashover", (60, 30, 70, 40)),
        ("bird nest", (21, 12, 31, 22)),  # which is painted over
    ]
    source = write_boxes(tmp_path / "photos", boxes, count=1)
    made = Made(jpegs(source)[0], kind=kind, method="diffuse", adds_labels=True)
    folder = write_made(tmp_path / "made", [made], component=None)
    recipe = load_settings(Recipe, find_recipe(Path("insulator")), [])
    sources = read_sources([SourceFolder.scan(source)], recipe, "auto")
    prepared = prepare_all(sources, recipe, ImageStore(tmp_path, recipe.pictures, None), 1)
    (read,) = open_made_folders([folder], recipe)
    (picture,) = with_labels_of_parents(read.pictures, recipe, sources, prepared)
    shapes = [shape for annotation in picture.image.annotations for shape in annotation.shapes]
    assert [shape.name for shape in shapes] == named
    (with_one,) = with_labels_of_parents(
        [replace(picture, facts=picture.facts.model_copy(update={"adds_labels": False}))],
        recipe, sources, prepared,
    )  # fmt: skip
    assert with_one.image == picture.image

    save_mask(folder / picture.facts.mask, np.ones((5, 5), bool))
    with pytest.raises(InputError, match=r"00000\.png: a mask of another size than its picture"):
        with_labels_of_parents(read.pictures, recipe, sources, prepared)


def test_donor_and_target_of_two_groups_stay_two_groups(photos: Path, plain: Path, tmp_path: Path) -> None:
    splits = split_of_photo(plain)
    target, donor = [path for path in jpegs(photos) if splits.get(path.stem) == "train"][:2]
    folder = write_made(tmp_path / "made", [Made(target, donors=[donor])])
    run(photos, tmp_path / "out", "--synthetic", folder)
    group_of = {Path(facts["source"]).name: facts["group"] for facts in pictures(tmp_path / "out").values()}
    assert group_of[target.stem] != group_of[donor.stem]
    records = made_records(tmp_path / "out")
    assert records
    for record in records:
        assert record.meta["group"] == group_of[target.stem]
        assert record.meta["groups"] == [group_of[target.stem], group_of[donor.stem]]
        assert record.meta["parents"] == [sha256(target), sha256(donor)]


def test_parents_are_found_under_other_names_but_not_elsewhere(
    photos: Path, plain: Path, tmp_path: Path
) -> None:
    splits = split_of_photo(plain)
    trained = next(path for path in jpegs(photos) if splits.get(path.stem) == "train")
    renamed = shutil.copy(trained, tmp_path / "other.jpg")
    foreign = write_photos(tmp_path / "foreign", 1, seed=5)
    folder = write_made(tmp_path / "made", [Made(Path(renamed)), *(Made(path) for path in jpegs(foreign))])
    run(photos, tmp_path / "out", "--synthetic", folder)
    assert {record.meta["parents"][0] for record in made_records(tmp_path / "out")} == {sha256(trained)}
    assert left_out(tmp_path / "out") == {"made pictures of a photo that is in no source": 1}


def test_a_picture_that_shows_a_held_out_photo_is_left_out_whatever_it_says(
    photos: Path, plain: Path, tmp_path: Path
) -> None:
    splits = split_of_photo(plain)
    trained = next(path for path in jpegs(photos) if splits.get(path.stem) == "train")
    tested = next(path for path in jpegs(photos) if splits.get(path.stem) == "test")
    folder = write_made(tmp_path / "made", [Made(tested, box=(20, 12, 23, 14))])
    content = read_json(folder / "synthetic.json")
    content["images"][0]["synthetic"]["parents"] = [{"name": trained.name, "sha256": sha256(trained)}]
    (folder / "synthetic.json").write_text(json.dumps(content))
    run(photos, tmp_path / "out", "--synthetic", folder)
    assert not made_records(tmp_path / "out")
    assert left_out(tmp_path / "out") == {"made pictures that look like a photo that is held out": 1}


@pytest.mark.parametrize("share", [0, 0.2])
def test_the_share_of_the_recipe_is_not_exceeded(
    photos: Path, plain: Path, made: Path, tmp_path: Path, share: float
) -> None:
    run(photos, tmp_path / "out", "--synthetic", made, f"synthetic.share={share}")
    in_train = sum(split == "train" for split in split_of_photo(plain).values())
    used = read_json(tmp_path / "out" / "manifest.json")["synthetic"]["folders"][0]["used"]
    assert used <= int(share / (1 - share) * in_train)
    assert bool(used) == bool(share)
    assert left_out(tmp_path / "out")["made pictures beyond synthetic.share"] > 0


def test_a_test_source_holds_out_the_pictures_made_of_it(photos: Path, tmp_path: Path) -> None:
    others = write_photos(tmp_path / "others", 12, seed=3)
    folder = write_made(tmp_path / "made", [Made(path) for path in (jpegs(others)[0], jpegs(photos)[0])])
    run(photos, tmp_path / "out", "--test-source", others, "--synthetic", folder, "--splits", "1,0,0")
    assert {record.meta["parents"][0] for record in made_records(tmp_path / "out")} == {
        sha256(jpegs(photos)[0])
    }
    assert left_out(tmp_path / "out") == {"made pictures of a photo that is held out": 1}


def test_calibration_holds_out_too(photos: Path, made: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "out", "--synthetic", made, "splits.calibration=0.3")
    splits = split_of_photo(tmp_path / "out")
    calibration = {name for name, split in splits.items() if split == "calibration"}
    of_them = {sha256(photos / "images" / f"{name}.jpg") for name in calibration}
    assert calibration
    assert not of_them & {
        parent for record in made_records(tmp_path / "out") for parent in record.meta["parents"]
    }
    assert not any(r.is_synthetic for r in read_json_list(tmp_path / "out" / "calibration.json", Record))


def test_a_new_background_has_the_boxes_of_its_photo(photos: Path, tmp_path: Path) -> None:
    folder = write_made(
        tmp_path / "made", [Made(path, None, method="diffuse") for path in jpegs(photos)[:20]]
    )
    done = run(photos, tmp_path / "out", "--synthetic", folder)
    facts = read_json(tmp_path / "out" / "manifest.json")["synthetic"]
    assert facts["kinds"].keys() == {"none"} and facts["methods"].keys() == {"diffuse"}
    assert f"{facts['pictures']} new background" in done.stdout
    assert {record.meta.get("label", "none") for record in made_records(tmp_path / "out")} == {"none"}


# --- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["source", "parent folder", "renamed", "test source"])
def test_made_pictures_are_no_source(photos: Path, made: Path, tmp_path: Path, how: str) -> None:
    folder = tmp_path / "given" / "made"
    shutil.copytree(made, folder)
    if how == "renamed":
        (folder / "synthetic.json").rename(folder / "annotations.json")
    source = folder.parent if how == "parent folder" else folder
    flags = (
        (photos, tmp_path / "out", "--test-source", source)
        if how == "test source"
        else (source, tmp_path / "out")
    )
    done = run(*flags)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "were made by `synthesize`" in line and "--synthetic" in line and str(folder) in line
    assert not (tmp_path / "out").exists()


def test_records_about_made_pictures_are_no_source_either(both: tuple[Path, str], tmp_path: Path) -> None:
    output, _ = both
    made_there = {image for record in made_records(output) for image in record.images}
    done = run(output, tmp_path / "out", "--format", "llava", recipe="vqa")
    assert done.returncode == 0, done.stderr
    assert "with a made picture, which must not be tested on" in done.stdout
    sources = {f"{facts['source']}.jpg" for facts in pictures(tmp_path / "out").values()}
    assert sources and not sources & made_there


@pytest.mark.parametrize("how", ["absent", "not made", "twice", "pictures lost", "other class", "damaged"])
def test_a_folder_that_cannot_be_used_is_one_line(photos: Path, tmp_path: Path, how: str) -> None:
    folder = write_made(
        tmp_path / "made", [Made(jpegs(photos)[0], "rust" if how == "other class" else "flashover")]
    )
    flags: list[object] = ["--synthetic", folder]
    named = str(folder)
    if how == "absent":
        flags = ["--synthetic", tmp_path / "none"]
        named = "no such folder"
    elif how == "not made":
        (folder / "synthetic.json").unlink()
        named = "name a folder that `synthesize` wrote"
    elif how == "twice":
        flags += flags
        named = "--synthetic names one folder twice"
    elif how == "pictures lost":
        next((folder / "images").iterdir()).unlink()
        named = "none of the pictures of its synthetic.json is there"
    elif how == "other class":
        named = "'rust' is not in the recipe"
    else:
        picture = next((folder / "images").iterdir())
        picture.write_bytes(picture.read_bytes()[:-200])
        # Only a picture that is used is decoded.
        flags += ["--splits", "1,0,0"]
        named = "00000_flashover.png"
    done = run(photos, tmp_path / "out", *flags)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert named in line
    assert not (tmp_path / "out").exists()


def test_bad_pictures_may_be_removed_from_their_folder(photos: Path, tmp_path: Path) -> None:
    folder = write_made(tmp_path / "made", [Made(path, "flashover") for path in jpegs(photos)[:3]])
    (folder / "images" / "00001_flashover.png").unlink()
    done = run(photos, tmp_path / "out", "--synthetic", folder, "--splits", "1,0,0")
    assert done.returncode == 0, done.stderr
    assert left_out(tmp_path / "out") == {"made pictures whose files were removed": 1}
    assert len({image for record in made_records(tmp_path / "out") for image in record.images}) == 2


# --- blending in what was converted before ---------------------------------------------------------------


def blend(photos: Path, output: Path, records: list[Record], of: Path) -> CompletedProcess[str]:
    file = output.parent / "mix.json"
    file.write_text(json.dumps([record.model_dump(by_alias=True, exclude_none=True) for record in records]))
    return run(
        photos, output, "--blend", file, "--blend-image-folder", of, "--blend-share", "0.01", "--seed", 4
    )


def test_blended_pictures_still_say_that_they_were_made(both: tuple[Path, str], tmp_path: Path) -> None:
    others = write_photos(tmp_path / "others", 24, seed=9)
    done = blend(others, tmp_path / "out", made_records(both[0]), both[0])
    assert done.returncode == 0, done.stderr
    blended = made_records(tmp_path / "out")
    assert blended and all(record.meta["task"] == "general" for record in blended)
    assert all(record.meta["parents"] and record.meta["method"] == "paste" for record in blended)


def test_blended_pictures_made_of_a_held_out_photo_are_refused(
    photos: Path, both: tuple[Path, str], tmp_path: Path
) -> None:
    """Another seed holds out other photos; the made pictures are altered beyond what looks alike."""
    assert run(photos, tmp_path / "plain", "--seed", 4).returncode == 0
    held_out = {
        sha256(photos / "images" / f"{name}.jpg")
        for name, split in split_of_photo(tmp_path / "plain").items()
        if split != "train"
    }
    of_held_out = [record for record in made_records(both[0]) if held_out & set(record.meta["parents"])]
    grey = tmp_path / "grey" / "images"
    grey.mkdir(parents=True)
    for record in of_held_out:
        Image.new("RGB", (80, 48), "grey").save(grey.parent / record.images[0])
    done = blend(photos, tmp_path / "out", of_held_out, grey.parent)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "was made of one of val or test" in line and "take it out there" in line
    assert not (tmp_path / "out").exists()

"""Photos are read as the recipe says, rare kinds come first, and all photos are used about equally."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_prep.__main__ import main as data_prep
from data_prep.synthesis.photos import NO_PLACE, NOT_TRAINED, read_photos, trained_keys
from data_prep.synthesis.plan import Planner, lacking, share_out
from llava.common.errors import InputError
from tests.support.made import recipe_of, source_of
from tests.support.photos import write_boxes, write_pair, write_photos

KINDS = ["a", "b", "c", "d"]
SOUND, WIDE = [("insulator", (5, 5, 75, 43))], (5, 5, 75, 43)


@given(st.dictionaries(st.sampled_from(KINDS), st.integers(0, 40)), st.integers(0, 120))
def test_the_rarest_kinds_are_filled_up_first(examples: dict[str, int], count: int) -> None:
    chosen = Counter(share_out(examples, KINDS, count))
    after = {kind: examples.get(kind, 0) + chosen[kind] for kind in KINDS}
    raised = [after[kind] for kind in KINDS if chosen[kind]]
    assert sum(chosen.values()) == count
    assert not raised or max(raised) - min(after.values()) <= 1


@given(st.dictionaries(st.sampled_from(KINDS), st.integers(0, 40)))
def test_what_is_lacking_makes_all_kinds_as_common_as_the_commonest(examples: dict[str, int]) -> None:
    chosen = Counter(share_out(examples, KINDS, lacking(examples, KINDS)))
    assert {examples.get(kind, 0) + chosen[kind] for kind in KINDS} == {max(examples.values(), default=0)}


def test_photos_are_upright_and_named_as_the_recipe_names(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", [("string", WIDE), ("missing cap", (10, 10, 20, 20))], 0)
    turned = tmp_path / "images" / "a.jpg"
    with Image.open(turned) as image:
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(turned, exif=exif)
    recipe = recipe_of()
    (photo,) = read_photos(source_of(tmp_path, recipe), recipe).photos
    assert photo.size == (48, 80)
    assert photo.pixels().shape == (80, 48, 3)
    assert [shape.name for shape in (*photo.components, *photo.defects)] == ["insulator", "missing disc"]
    assert photo.components[0].box == (48 - 43, 5, 48 - 5, 75)
    assert photo.name == "images/a.jpg"


def test_a_damaged_photo_is_found_before_anything_is_made(tmp_path: Path) -> None:
    write_boxes(tmp_path, SOUND, count=2)
    recipe = recipe_of()
    source = source_of(tmp_path, recipe)
    photo = source.images[1].file
    photo.write_bytes(photo.read_bytes()[:-100])
    with pytest.raises(InputError, match=rf"{photo.name}: the picture is damaged or cut short"):
        read_photos(source, recipe)


def test_photos_whose_defect_has_no_place_are_left_out_and_counted(tmp_path: Path) -> None:
    for name in ("good", "scratches", "inclusion"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (60, 60)).save(tmp_path / name / f"{name}.png")
    recipe = recipe_of("steel_surface")
    read = read_photos(source_of(tmp_path, recipe), recipe)
    assert [photo.name for photo in read.photos] == ["good/good.png"]
    assert read.left_out == {NO_PLACE: 2}
    assert read.examples == {"scratches": 1, "inclusion": 1}


def test_only_what_is_trained_on_is_used(tmp_path: Path) -> None:
    source, data = write_photos(tmp_path / "photos", 30), tmp_path / "data"
    assert (
        data_prep(["convert", "--source", str(source), "--recipe", "insulator", "--output", str(data)]) == 0
    )
    pictures = json.loads((data / "manifest.json").read_text())["pictures"].values()
    recipe = recipe_of()
    read = read_photos(source_of(source, recipe), recipe, trained_keys(data))
    splits = {picture["source"]: picture["split"] for picture in pictures}
    assert {splits[photo.name.removesuffix(".jpg")] for photo in read.photos} == {"train"}
    assert len(read.photos) + read.left_out[NOT_TRAINED] == 30
    with pytest.raises(InputError, match=r"no manifest\.json in it"):
        trained_keys(tmp_path)


def test_photos_and_components_are_used_about_equally(tmp_path: Path) -> None:
    two = [("insulator", (2, 2, 38, 46)), ("insulator", (42, 2, 78, 46))]
    write_boxes(tmp_path, SOUND, two, [*two, ("flashover", (45, 10, 60, 20))], count=12)
    recipe = recipe_of()
    photos = read_photos(source_of(tmp_path, recipe), recipe).photos
    planner = Planner(photos, True, seed=4)
    jobs = [planner.job(kind) for kind in ["broken disc", "flashover", "pollution"] * 16]
    assert set(Counter(job.photo.name for job in jobs).values()) == {4}
    assert set(Counter((job.photo.name, job.kind) for job in jobs).values()) <= {1, 2}
    assert [job.number for job in jobs] == list(range(48))
    assert len({job.seed for job in jobs}) == 48
    for job in jobs:
        assert job.target in job.photo.sound_components()
    halves = Counter(job.target for job in jobs if len(job.photo.sound_components()) == 2 and job.target)
    assert set(halves.values()) == {8}  # of four photos, used four times each

    again = Planner(photos, True, seed=4)
    assert [again.job(job.kind) for job in jobs] == jobs
    other = Planner(photos, True, seed=5)
    assert [other.job(job.kind) for job in jobs] != jobs


def test_a_kind_goes_only_on_components_that_it_was_seen_on(tmp_path: Path) -> None:
    recipe = recipe_of("insulator", "components=[{name: insulator}, {name: damper}]")
    damper = ("damper", (42, 2, 78, 46))
    write_pair(tmp_path, "seen", [damper, ("pollution", (50, 10, 60, 20))], 0)
    write_pair(tmp_path, "both", [("insulator", (2, 2, 38, 46)), damper], 1)
    write_pair(tmp_path, "none", [("insulator", (2, 2, 38, 46))], 2)
    planner = Planner(read_photos(source_of(tmp_path, recipe), recipe).photos, True, seed=0)
    jobs = [planner.job("pollution") for _ in range(4)]
    assert {(job.photo.name, job.target and job.target.name) for job in jobs} == {
        ("images/both.jpg", "damper")
    }
    assert {planner.job("flashover").photo.name for _ in range(6)} == {"images/both.jpg", "images/none.jpg"}


def test_any_component_may_get_new_surroundings_or_those_with_a_kind(tmp_path: Path) -> None:
    burnt, sound = ("insulator", (2, 2, 38, 46)), ("insulator", (42, 2, 78, 46))
    write_boxes(tmp_path, [burnt, sound, ("flashover", (5, 10, 20, 20))], [sound], count=4)
    recipe = recipe_of()
    photos = read_photos(source_of(tmp_path, recipe), recipe).photos
    planner = Planner(photos, True, seed=4)
    assert planner.count_photos(None) == 4
    jobs = [planner.job(None) for _ in range(8)]
    assert set(Counter(job.photo.name for job in jobs).values()) == {2}
    assert Counter(job.target and job.target.box for job in jobs) == {(2, 2, 38, 46): 2, (42, 2, 78, 46): 6}
    kept = Planner(photos, True, seed=4, kept=["flashover"])
    assert kept.count_photos(None) == 2
    assert {kept.job(None).target for _ in range(4)} == {photos[0].components[0]}
    assert Planner(photos, True, seed=4, kept=["pollution"]).count_photos(None) == 0


def test_without_components_a_defect_may_be_anywhere(tmp_path: Path) -> None:
    write_boxes(tmp_path, [("scratches", (10, 10, 30, 20))], count=2)
    recipe = recipe_of("steel_surface")
    photos = read_photos(source_of(tmp_path, recipe), recipe).photos
    assert Planner(photos, False, seed=0).job("inclusion").target is None
    assert not Planner(photos, True, seed=0).count_photos("inclusion")

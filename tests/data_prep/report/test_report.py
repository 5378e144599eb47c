"""The report's facts against numbers counted otherwise, and its page against hostile text."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_prep.__main__ import main as data_prep
from data_prep.annotations import Shape
from data_prep.model_inputs import MODEL_INPUTS, ModelInput
from data_prep.report.box_sizes import box_sizes, thin_warnings
from data_prep.report.conversion import one_sided
from data_prep.report.model import AnswerCounts, ComparedImage, MessageList, Report, ShapeRole, View
from data_prep.report.page import page
from data_prep.report.survey import (
    SAMPLES,
    SHOWN_PAIRS,
    choose_samples,
    count_classes,
    draw_samples,
    show_akin,
)
from data_prep.splits.checks import Check
from data_prep.splits.groups import Leaks
from llava.common.files import read_json_list
from llava.common.html.markup import tag
from llava.common.records import Record
from tests.support.html_page import HOSTILE, Page, check_alone
from tests.support.photos import write_photos

SHAPE_ROLES: dict[str, ShapeRole] = {"defect": "defect", "insulator": "component"}


def view(name: str = "a", split: str = "", *shapes: Shape, size: tuple[int, int] = (1152, 864)) -> View:
    return View(name, Path("absent.jpg"), size, shapes, split=split)


def box(name: str, width: float, height: float) -> Shape:
    return Shape(name, (10.0, 10.0, 10 + width, 10 + height))


def report(**more: Any) -> Report:
    facts: dict[str, Any] = {"title": "t", "facts": [], "unit": "picture", "classes": [], "splits": [""]}
    return Report(**(facts | more))


def test_thickness_is_the_shorter_side_in_the_padded_square() -> None:
    model_input = ModelInput()
    assert model_input.thickness(box("defect", 200, 48).box, (1152, 864)) == 14  # 336 / 1152 of 48
    assert model_input.thickness(box("defect", 48, 200).box, (864, 1152)) == 14
    assert ModelInput("other", 672, 14).thickness(box("defect", 200, 48).box, (1152, 864)) == 28


def test_sizes_count_boxes_by_patches_and_class() -> None:
    views = [
        view("a", "", box("defect", 90, 47.9), box("insulator", 500, 300)),
        view("b", "", box("defect", 90, 48), box("defect", 90, 11)),
    ]
    defects, components = box_sizes(views, SHAPE_ROLES, [ModelInput()])
    assert (defects.role, components.role) == ("defect", "component")
    assert defects.bins == (1, 0, 1, 1, 0, 0, 0)  # 3.2, 13.97 and 14 model pixels
    assert (defects.count, defects.thin, defects.classes[0].name) == (3, 2, "defect")
    assert (components.count, components.thin) == (1, 0)


def test_warning_of_thin_defects_tells_a_span_that_would_do() -> None:
    thick = [10, 20, 20, 20, 20, 20, 20, 20, 20, 20]
    views = [view(str(n), "", box("defect", 200, side)) for n, side in enumerate(thick)]
    (warning,) = thin_warnings(views, box_sizes(views, SHAPE_ROLES, [ModelInput()]), SHAPE_ROLES, None)
    assert warning.startswith("10 of 10 defects (100%) are thinner than one 14-pixel patch")
    assert "unit: object" not in warning and "unit: tile" in warning, "there is no component to crop around"
    share = int(re.findall(r"at most (\d+)%", warning)[0]) / 100
    seen = [side * 336 / (share * 1152) for side in thick]
    assert sum(side >= 13.8 for side in seen) == 9  # up to the rounding to whole percents
    assert max(seen) < 16  # and no smaller span than needed


@pytest.mark.parametrize("roles", [SHAPE_ROLES, {}])
def test_crops_are_advised_where_defects_lie_in_components(roles: dict[str, ShapeRole]) -> None:
    views = [view(str(n), "", box("defect", 90, 20), box("insulator", 900, 30)) for n in range(4)]
    (warning,) = thin_warnings(views, box_sizes(views, roles, [ModelInput()]), roles, None)
    assert "crop around each component (unit: object in the recipe)" in warning


def test_no_warning_where_components_alone_or_few_defects_are_thin() -> None:
    views = [view(str(n), "", box("defect", 90, 90), box("insulator", 900, 20)) for n in range(19)]
    assert not thin_warnings(views, box_sizes(views, SHAPE_ROLES, [ModelInput()]), SHAPE_ROLES, None)
    views.append(view("thin", "", box("defect", 90, 20)))
    assert not thin_warnings(views, box_sizes(views, SHAPE_ROLES, [ModelInput()]), SHAPE_ROLES, None)


def test_the_warning_says_how_other_models_fare() -> None:
    views = [view(str(n), "", box("defect", 90, side)) for n, side in enumerate([20, 30, 30, 30])]
    (warning,) = thin_warnings(views, box_sizes(views, SHAPE_ROLES, MODEL_INPUTS), SHAPE_ROLES, None)
    assert warning.startswith("4 of 4 defects (100%)") and "LLaVA-1.5 sees the whole picture" in warning
    assert "To LLaVA-1.6, at 672 pixels, 25% are." in warning
    # What counts is the first model: one that sees enough is not warned about others.
    assert not thin_warnings(
        views[1:], box_sizes(views[1:], SHAPE_ROLES, MODEL_INPUTS[::-1]), SHAPE_ROLES, None
    )


def test_without_a_recipe_the_warning_names_the_thin_classes() -> None:
    views = [view(str(n), "", box("chip", 90, 20), box("string", 900, 300)) for n in range(4)]
    (warning,) = thin_warnings(views, box_sizes(views, {}, [ModelInput()]), {}, None)
    assert warning.startswith("4 of 4 boxes of 'chip' (100%)") and "string" not in warning


def test_commonest_answer_is_the_baseline() -> None:
    part = AnswerCounts("train", "presence", "en", "yesno", count=10)
    for answer in ["no"] * 7 + ["yes"] * 3:
        part.add(answer)
    assert part.commonest == ("no", 0.7)
    assert len(one_sided([part])) == 1 and "70%" in one_sided([part])[0]
    even = AnswerCounts("train", "presence", "en", "yesno", count=10)
    for answer in ["no", "yes"] * 5:
        even.add(answer)
    assert not one_sided([even])


def test_answers_of_free_text_take_bounded_room() -> None:
    part = AnswerCounts("train", "vqa", "en", count=5000)
    for number in range(5000):
        part.add(f"answer {number}")
    assert len(part.answers) == 1000 and part.different == "1,000 or more" and part.commonest is None


def thumbnails(folder: Path, count: int) -> list[Path]:
    files = [folder / f"{number}.png" for number in range(count)]
    for number, file in enumerate(files):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(file)
    return files


def copies(*pairs: tuple[int, int, str]) -> list[Check]:
    return [Check("copies", "copies", pairs), Check("moments", "bursts", not_checked="no times")]


def test_pairs_in_two_splits_come_first(tmp_path: Path) -> None:
    files = thumbnails(tmp_path, 4)
    images = [ComparedImage(file.stem, file, split) for file, split in zip(files, "aabc", strict=True)]
    akin = show_akin(images, copies((0, 1, "the same"), (2, 3, "one bit differs")), None)
    assert (akin.pairs, akin.crossing) == (2, 1)
    assert akin.summary == "copies: 4 pictures; bursts not checked (no times)"
    assert [(pair.likeness, pair.first.name, pair.second.name) for pair in akin.shown] == [
        ("one bit differs", "2", "3"),
        ("the same", "0", "1"),
    ]
    assert all(still.startswith("data:image/jpeg") for pair in akin.shown for still in pair.images)
    found = check_alone(page(report(akin=akin)))
    assert "on two sides: b and c" in found.text and "both in a" in found.text
    assert "bursts not checked (no times)" in found.text


def test_a_film_of_like_images_shows_a_few_pairs(tmp_path: Path) -> None:
    (file,) = thumbnails(tmp_path, 1)
    images = [ComparedImage(str(number), file) for number in range(200)]
    akin = show_akin(images, copies(*((i, j, "0 bits") for j in range(200) for i in range(j))), None)
    assert akin.pairs == 200 * 199 // 2 and akin.crossing is None
    assert len(akin.shown) == SHOWN_PAIRS
    names = [name for pair in akin.shown for name in (pair.first.name, pair.second.name)]
    assert len(set(names)) == 2 * SHOWN_PAIRS  # not the same picture in every pair
    assert f"{SHOWN_PAIRS} of 19,900 pairs" in Page(page(report(akin=akin))).text


def test_it_is_said_where_not_all_pairs_were_looked_for(tmp_path: Path) -> None:
    (file,) = thumbnails(tmp_path, 1)
    images = [ComparedImage(str(number), file) for number in range(2)]
    leaks = Leaks(twins=1, akin=1, random_twins=0.5, random_akin=0.5, given_twins=None, given_akin=None)
    (copies_found, *_) = copies((0, 1, "0 bits"))
    all_found, some = (
        Page(page(report(akin=show_akin(images, [replace(copies_found, some_pairs=some)], leaks)))).text
        for some in (False, True)
    )
    assert "(0.5 that look alike)" in all_found and "hang together" not in all_found
    assert "(at least 0.5 that look alike)" in some
    assert "Where more than 50 pictures hang together" in some


@given(st.lists(st.tuples(st.sampled_from(["train", "val", "test"]), st.sampled_from("abcd")), max_size=80))
def test_samples_show_every_split_and_class(kinds: Sequence[tuple[str, str]]) -> None:
    views = [view(str(n), split, box(name, 9, 9)) for n, (split, name) in enumerate(kinds)]
    chosen = choose_samples(views)
    assert len(chosen) == min(SAMPLES, len(views)) == len({item.name for item in chosen})
    assert {(item.split, *item.classes) for item in chosen} == set(kinds)  # 12 at most
    assert choose_samples(views) == chosen


@pytest.mark.parametrize("name", HOSTILE)
def test_foreign_text_stays_text(name: str, tmp_path: Path) -> None:
    (file,) = thumbnails(tmp_path, 1)
    shapes = (Shape(name, (1.0, 1.0, 5.0, 5.0)),)
    seen = View(name, file, (8, 8), shapes, (name,), name, conversations=())
    answers = AnswerCounts(name, name, name, name, 1, answers=Counter({name: 1}))
    akin = show_akin([ComparedImage(name, file, name)] * 2, copies((0, 1, name)), None)
    text = page(
        report(
            title=name,
            facts=[(name, name)],
            splits=[name],
            classes=count_classes([seen], {}),
            mapping=[(name, f"unknown {name}")],
            kinds={name: Counter({name: 1})},
            split_counts={name: {name: 1}},
            image_sizes=Counter({(8, 8): 1}),
            sizes=box_sizes([seen], {}, [ModelInput(name)]),
            answers=[answers],
            akin=akin,
            samples=draw_samples([seen], ModelInput()),
            view_count=1,
            notes=[MessageList(name, name, [name])],
            warnings=[name],
        )
    )
    text.encode("utf-8")
    assert not [char for char in text if char in "\x00\x1b\u202e"]
    found = check_alone(text)
    plain = "".join(char for char in name if char.isprintable())
    assert found.text.count(plain.split()[0]) >= 10  # it is shown, in every part


@given(st.text(), st.text())
def test_a_tag_escapes_what_it_holds(inside: str, value: str) -> None:
    made = tag("p", inside, title=value)
    made.encode("utf-8")
    found = Page(made)
    assert [name for name, _ in found.elements] == ["p"]
    assert list(found.elements[0][1]) == ["title"]


def test_long_lists_are_cut_and_say_so() -> None:
    lines = [f"file {number}" for number in range(10_000)]
    text = page(report(notes=[MessageList("Left out", "Why.", lines)]))
    assert "First 200 of 10,000." in Page(text).text and "Left out (10,000)" in Page(text).text
    assert len(text) < 50_000


@pytest.fixture(scope="module")
def converted(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    photos = write_photos(folder / "photos")
    # A near-twin of one of them, under a name far from it.
    with Image.open(photos / "images" / "broken_disc_001.jpg") as image:
        image.resize((160, 96)).save(photos / "images" / "z_again.jpg", quality=80)
    twin = (photos / "annotations" / "broken_disc_001.xml").read_text()
    (photos / "annotations" / "z_again.xml").write_text(twin.replace("broken_disc_001", "z_again"))
    recipe = repo / "configs" / "recipes" / "insulator.yaml"
    command = ["convert", "--source", str(photos), "--recipe", str(recipe), "--output", str(folder / "out")]
    assert data_prep(command) == 0
    return folder / "out"


def test_conversion_writes_a_report_that_agrees_with_its_records(converted: Path) -> None:
    text = (converted / "report.html").read_text(encoding="utf-8")
    found = check_alone(text)
    assert len(text) < 3_000_000
    records = {
        split: read_json_list(converted / f"{split}.json", Record) for split in ("train", "val", "test")
    }
    answers = Counter(r.conversations[1].value for r in records["val"] if r.meta["task"] == "presence")
    assert answers["yes"] != answers["no"]  # else either is the commonest
    answer, count = answers.most_common(1)[0]
    assert f"val {answers.total()} 2 {answer} {count / answers.total():.0%}" in found.text
    images = {name for split in records.values() for record in split for name in record.images}
    assert f"pictures written {len(images)}" in found.text
    turns = sum(len(record.conversations) // 2 for split in records.values() for record in split)
    assert f"questions and answers {turns:,}" in found.text


def test_conversion_report_shows_twins_and_samples(converted: Path) -> None:
    found = Page((converted / "report.html").read_text(encoding="utf-8"))
    assert "images/broken_disc_001" in found.text and "images/z_again" in found.text
    assert "of 240 bits differ ; both in" in found.text
    images = found.named("img")
    assert (
        2 * SAMPLES < len(images) <= 2 * SAMPLES + 2 * SHOWN_PAIRS
    )  # a sample as the model sees it, and large
    assert all(image["alt"] for image in images)
    assert len(found.named("rect")) >= 2 * SAMPLES  # boxes are drawn
    links = {link["href"] for link in found.named("a") if link.get("title") == "enlarge"}
    assert links == {f"#{figure['id']}" for figure in found.named("figure") if "id" in figure}
    assert len(links) == SAMPLES
    boxed = read_json_list(converted / "train.json", Record)
    shown = [record for record in boxed if record.conversations[1].value in found.text]
    assert shown


def test_conversion_report_shows_sizes_to_several_models_and_says_how_they_look(converted: Path) -> None:
    found = Page((converted / "report.html").read_text(encoding="utf-8"))
    assert "box sizes judged by tiny-llava (144 pixels, patch 12)" in found.text
    assert "Defects as tiny-llava sees them: picture padded to a square of 144 pixels, patch 12" in found.text
    later = "Defects as LLaVA-1.6 sees them: picture fitted into 672 x 672 pixels, in tiles of 336, patch 14"
    assert later in found.text
    assert len(found.named("details")) == 5  # all but what the first model sees of defects
    assert "as large as tiny-llava sees them" in found.text


def test_report_is_the_same_for_any_number_of_workers(converted: Path, repo: Path, tmp_path: Path) -> None:
    photos, recipe = converted.parent / "photos", repo / "configs" / "recipes" / "insulator.yaml"
    command = ["convert", "--source", str(photos), "--recipe", str(recipe), "--workers", "3"]
    assert data_prep([*command, "--output", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "report.html").read_bytes() == (converted / "report.html").read_bytes()


def test_defects_thinner_than_a_patch_are_warned_of(repo: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(12):
        image = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((800, 600))
        image.save(photos / f"{number}.jpg")
        (photos / f"{number}.xml").write_text(
            "<annotation><object><name>defect</name><bndbox><xmin>100</xmin><ymin>100</ymin><xmax>125</xmax>"
            "<ymax>125</ymax></bndbox></object></annotation>"
        )
    recipe = repo / "configs" / "recipes" / "defect.yaml"
    command = ["convert", "--source", str(photos), "--recipe", str(recipe), "--output", str(tmp_path / "out")]
    assert data_prep([*command, "unit=picture"]) == 0
    found = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert "12 of 12 defects (100%) are thinner than one 12-pixel patch" in found.text
    command[-1] = str(tmp_path / "mine")
    assert data_prep([*command, "unit=picture", "--model", "llava16_mistral_7b_lora"]) == 0
    found = Page((tmp_path / "mine" / "report.html").read_text(encoding="utf-8"))
    assert "Defects as llava-v1.6-mistral-7b-hf sees them: picture fitted into 672 x 672 pixels" in found.text
    assert "Nothing that asks for attention" in found.text

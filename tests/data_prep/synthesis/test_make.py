"""Pictures are written with their facts, rejected ones tried anew, and a killed run goes on."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from data_prep.formats.coco import NAME as COCO
from data_prep.model_inputs import ModelInput
from data_prep.synthesis.filter import Filter, Made
from data_prep.synthesis.make import TRIES, Workshop
from data_prep.synthesis.painted import Job, Painted, Photo, Rejected
from data_prep.synthesis.photos import read_photos
from data_prep.synthesis.plan import Planner
from data_prep.synthesis.sheet import draw_sheets
from data_prep.synthesis.writer import Outcome, PictureWriter, rejections
from data_prep.synthetic import read_synthetic
from llava.common.images import open_image
from llava.common.masks import changed_pixels, load_mask
from llava.common.synthetic import Info
from tests.support.made import SpotPainter, recipe_of, source_of
from tests.support.photos import contents, write_photos
from tests.support.read_source import boxes_of, read_auto

WANTED = ["broken disc", "flashover"] * 6
RECIPE = recipe_of()
CLASSES = [kind.name for kind in RECIPE.kinds]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Photo]:
    folder = write_photos(tmp_path_factory.mktemp("photos"), 12)
    return read_photos(source_of(folder, RECIPE), RECIPE).photos


def workshop(output: Path, photos: Sequence[Photo], painter: SpotPainter, workers: int = 1) -> Workshop:
    return Workshop(
        painter,
        Planner(photos, True, seed=1),
        Filter(RECIPE, ModelInput(), least=7),
        PictureWriter(output, painter.method, CLASSES, {"seed": 1}),
        workers=workers,
    )


def make(output: Path, photos: Sequence[Photo], painter: SpotPainter, workers: int = 1) -> list[Outcome]:
    shop = workshop(output, photos, painter, workers)
    outcomes = shop.make(WANTED, lambda outcome: None)
    info = Info(method=painter.method, recipe="insulator", seed=1, rejected=rejections(outcomes))
    shop.writer.finish(shop.writer.synthetic_file(outcomes, info))
    return outcomes


def test_pictures_are_those_of_the_photos_but_for_the_mask(tmp_path: Path, photos: list[Photo]) -> None:
    make(tmp_path / "made", photos, SpotPainter())
    by_name = {photo.name: photo for photo in photos}
    file = read_synthetic(tmp_path / "made")
    assert [image.synthetic.kind for image in file.images] == WANTED
    for image in file.images:
        photo = by_name[image.synthetic.parents[0].name]
        assert image.synthetic.parents == [photo.parent]
        pixels = np.asarray(open_image(tmp_path / "made" / image.file_name))
        mask = load_mask(tmp_path / "made" / image.synthetic.mask)
        assert (pixels != photo.pixels())[mask].any()
        assert not (pixels != photo.pixels())[~mask].any()
        (made,) = [a for a in file.annotations if a.image_id == image.id and a.made]
        assert made.area == changed_pixels(photo.pixels(), pixels).sum() == np.count_nonzero(mask)
    assert len({annotation.id for annotation in file.annotations}) == len(file.annotations)


def test_coco_readers_find_all_boxes(tmp_path: Path, photos: list[Photo]) -> None:
    make(tmp_path / "made", photos, SpotPainter())
    file = read_synthetic(tmp_path / "made")
    boxes = boxes_of(read_auto(tmp_path / "made", COCO))
    assert len(boxes) == len(WANTED)
    by_name = {photo.name: photo for photo in photos}
    for image in file.images:
        photo = by_name[image.synthetic.parents[0].name]
        *there, made = boxes[image.file_name.removesuffix(".png")]
        assert there == [(shape.name, shape.box) for shape in (*photo.components, *photo.defects)]
        assert made[0] == image.synthetic.kind


def test_what_is_rejected_is_tried_on_other_photos(tmp_path: Path, photos: list[Photo]) -> None:
    outcomes = make(tmp_path / "made", photos, SpotPainter(refuses=[0, 3, 12]))
    assert rejections(outcomes) == {"refused": 3}
    assert len(outcomes) == len(WANTED) + 3
    file = read_synthetic(tmp_path / "made")
    assert sorted(image.synthetic.kind or "" for image in file.images) == sorted(WANTED)
    assert file.info.rejected == {"refused": 3}

    never = make(tmp_path / "none", photos, SpotPainter(refuses=range(1000)))
    assert rejections(never) == {"refused": TRIES * len(WANTED)}


@pytest.mark.parametrize("workers", [1, 3])
def test_a_stopped_run_goes_on_and_makes_the_same(tmp_path: Path, photos: list[Photo], workers: int) -> None:
    class Stops(SpotPainter):
        def paint(self, jobs: Sequence[Job]) -> Sequence[Painted | Rejected]:
            if jobs[0].number >= 6:
                raise KeyboardInterrupt
            return super().paint(jobs)

    make(tmp_path / "whole", photos, SpotPainter(refuses=[1]), workers)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "made", photos, Stops(refuses=[1]), workers)
    assert not (tmp_path / "made").exists()
    with (tmp_path / ".made.partial" / "done.jsonl").open("a") as file:
        file.write('{"number": 9, "kind": "flash')  # cut short by the kill
    painter = SpotPainter(refuses=[1])
    make(tmp_path / "made", photos, painter, workers)
    assert sorted(number for batch in painter.batches for number in batch) == list(range(6, 13))
    assert contents(tmp_path / "made") == contents(tmp_path / "whole")


def test_other_settings_begin_anew(tmp_path: Path, photos: list[Photo]) -> None:
    shop = workshop(tmp_path / "made", photos, SpotPainter())
    shop.make(WANTED, lambda outcome: None)
    assert shop.writer.earlier() == (len(WANTED), [])
    assert len(shop.writer.begin()) == len(WANTED)
    other = PictureWriter(tmp_path / "made", "render", CLASSES, {"seed": 2, "kept": None})
    assert other.earlier() == (len(WANTED), ["seed"])
    assert other.begin() == {}
    assert other.earlier() == (0, [])
    (tmp_path / ".made.partial" / "settings.json").write_text("{")
    assert shop.writer.begin() == {}


def test_a_judge_rejects(tmp_path: Path, photos: list[Photo]) -> None:
    def judge(job: Job, made: Made) -> str | None:
        return "odd" if job.number % 2 else None

    shop = workshop(tmp_path / "made", photos, SpotPainter())
    shop = Workshop(shop.painter, shop.planner, shop.filter, shop.writer, judge)
    outcomes = shop.make(WANTED, lambda outcome: None)
    assert {outcome.rejected for outcome in outcomes if outcome.number % 2} == {"odd"}
    assert all(outcome.image for outcome in outcomes if outcome.number % 2 == 0)


def test_sheets_show_pictures_of_all(tmp_path: Path, photos: list[Photo]) -> None:
    make(tmp_path / "made", photos, SpotPainter())
    by_name = {photo.name: photo for photo in photos}
    file = read_synthetic(tmp_path / "made")
    assert [path.name for path in draw_sheets(tmp_path / "made", file, by_name)] == ["contact_sheet.png"]
    few = np.asarray(open_image(draw_sheets(tmp_path / "made", file, by_name, shown=2)[0]))
    assert few.shape[0] < 500
    many = file.model_copy(update={"images": file.images * 2})
    pages = draw_sheets(tmp_path / "made", many, by_name)
    assert [path.name for path in pages] == ["contact_sheet.png", "contact_sheet_2.png"]
    assert json.loads((tmp_path / "made" / "synthetic.json").read_text())["info"]["version"] == 1

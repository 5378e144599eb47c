"""The novelty bank, whom it is refused, and the meter, which measures in the pass that answers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from llava.common.errors import InputError
from llava.inference.engine import Engine, Request
from llava.inference.model_runner import ModelRunner
from llava.model.builder import load_model
from llava.novelty.bank import NoveltyBank, read_bank
from llava.novelty.build import BankSettings, KnownPicture, build_bank
from llava.novelty.coreset import k_centre
from llava.novelty.meter import NoveltyMeter
from tests.support.small_model import random_model


def stripes(seed: int, strange: bool = False) -> Image.Image:
    """A picture of grey stripes, twice as wide as high; the strange one has a red disc at its right end."""
    rng = np.random.default_rng(seed)
    rows = np.repeat(rng.integers(90, 160, (18, 1, 3), dtype=np.uint8), 16, axis=1)
    picture = Image.fromarray(rows).resize((288, 144), Image.Resampling.NEAREST)
    if strange:
        ImageDraw.Draw(picture).ellipse((240, 60, 276, 96), fill=(255, 0, 0))
    return picture


@pytest.fixture(scope="module")
def runner(tiny_model_dir: Path) -> ModelRunner:
    return ModelRunner(load_model(tiny_model_dir, device="cpu"))


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> list[KnownPicture]:
    folder = tmp_path_factory.mktemp("known")
    for seed in range(32):
        stripes(seed).save(folder / f"{seed}.png")
    return [KnownPicture(folder / f"{seed}.png", str(seed), sound=True) for seed in range(32)]


@pytest.fixture(scope="module")
def bank(runner: ModelRunner, known: list[KnownPicture]) -> NoveltyBank:
    return build_bank(runner, "tiny", known[:12], known[12:], BankSettings(vectors=300))


def test_a_coreset_covers_and_has_no_more_than_asked() -> None:
    clusters = torch.arange(8.0).repeat_interleave(50)[:, None] * torch.ones(3) * 10
    vectors = clusters + 0.1 * torch.randn(400, 3, generator=torch.Generator().manual_seed(1))
    chosen = k_centre(vectors, 8)
    assert sorted((chosen // 50).tolist()) == list(range(8))  # one of each cluster
    assert len(k_centre(torch.ones(20, 3), 5)) == 1  # equal ones are not worth keeping


def test_a_saved_bank_says_the_same(bank: NoveltyBank, tmp_path: Path) -> None:
    bank.save(tmp_path / "bank.safetensors")
    again = read_bank(tmp_path / "bank.safetensors")
    assert again.info == bank.info
    assert len(again.vectors) == 300
    patches = torch.randn(1, 12, 12, 160)
    here, there = bank.to(torch.device("cpu")), again.to(torch.device("cpu"))
    assert torch.equal(here.patch_distances(patches), there.patch_distances(patches))
    assert np.array_equal(here.projections, there.projections)
    assert here.p_value(5.0) == there.p_value(5.0)
    assert [path.name for path in tmp_path.iterdir()] == ["bank.safetensors"]


def test_another_file_is_no_bank(tmp_path: Path, tiny_model_dir: Path) -> None:
    (tmp_path / "text").write_text("no")
    for path in (tmp_path / "text", tiny_model_dir / "model.safetensors", tmp_path / "absent"):
        with pytest.raises(InputError, match="bank"):
            read_bank(path)


def test_another_model_is_refused(bank: NoveltyBank, tiny_model_dir: Path) -> None:
    with pytest.raises(InputError, match="of another model"):
        NoveltyMeter(ModelRunner(random_model(tiny_model_dir)), bank)


def test_another_precision_is_refused(bank: NoveltyBank, runner: ModelRunner) -> None:
    info = bank.info.model_copy(update={"dtype": "torch.bfloat16"})
    with pytest.raises(InputError, match="made in bfloat16, the model runs in float32"):
        NoveltyMeter(runner, replace(bank, info=info))


def test_calibration_pictures_must_be_new(runner: ModelRunner, known: list[KnownPicture]) -> None:
    with pytest.raises(InputError, match=r"3\.png is a training picture too"):
        build_bank(runner, "tiny", known[:8], known[3:4])


def test_answering_measures_what_the_tower_sees(bank: NoveltyBank, tiny_model_dir: Path) -> None:
    """The tower runs once, for all in one batch; what is measured is of the plain tower's features."""
    loaded = load_model(tiny_model_dir, device="cpu")
    engine = Engine(loaded)
    meter = NoveltyMeter(engine.runner, bank)
    tower_passes: list[int] = []
    handle = loaded.model.model.vision_tower.register_forward_hook(lambda *_: tower_passes.append(1))
    pixels = [loaded.processor.pixels(picture) for picture in (stripes(40), stripes(41), stripes(41, True))]
    engine.answer(
        [Request(f"{at}/{text}", text, [image]) for at, image in enumerate(pixels) for text in ("A?", "B?")],
        max_new_tokens=2,
    )
    handle.remove()
    assert len(tower_passes) == 1
    for image in pixels:
        with torch.inference_mode():
            tower = loaded.model.model.vision_tower(image.patches, output_hidden_states=True)
        patches = tower.hidden_states[bank.info.layer][:, 1:].unflatten(1, (12, 12))
        measured = meter.of([image])
        assert measured is not None
        assert measured.distance == pytest.approx(float(bank.patch_distances(patches).max()), rel=1e-3)
        assert measured.projection == pytest.approx(bank.project(patches).tolist(), abs=1e-3)
    plain, strange = meter.of(pixels[1:2]), meter.of(pixels[1:])
    assert plain is not None
    assert strange is not None
    assert strange.distance > 2 * plain.distance  # of several images, the newest counts
    assert strange.p_value == bank.p_value.smallest == 1 / 21
    assert plain.p_value > 0.05
    assert strange.place is not None
    x1, y1, x2, y2 = strange.place  # of the picture, not of the square it is padded to
    assert x1 < 258 / 288 + 0.1
    assert x2 > 258 / 288 - 0.1
    assert y1 < 78 / 144 + 0.15
    assert y2 > 78 / 144 - 0.15
    assert meter.of([loaded.processor.pixels(stripes(50))]) is None  # never read


def test_a_picture_never_seen_has_a_map_of_where(
    bank: NoveltyBank, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llava.novelty.meter.NEVER_SEEN", 1 / 21)  # 20 groups calibrate
    engine = Engine(load_model(tiny_model_dir, device="cpu"))
    meter = NoveltyMeter(engine.runner, bank)
    plain, strange = (engine.runner.processor.pixels(stripes(41, disc)) for disc in (False, True))
    engine.answer(
        [Request(str(at), "A?", [one]) for at, one in enumerate((plain, strange))], max_new_tokens=1
    )
    unremarkable, novelty = meter.of([plain]), meter.of([strange])
    assert unremarkable is not None and unremarkable.map is None
    assert novelty is not None and novelty.map is not None and novelty.place is not None
    assert novelty.map.box == (0, -0.5, 1, 1.5), "twice as wide as high, it was padded above and below"
    levels = np.array([list(map(int, row)) for row in novelty.map.rows])
    assert levels.shape == (12, 12) and levels.max() == 9
    row, column = np.unravel_index(levels.argmax(), levels.shape)
    x, y = (column + 0.5) / 12, -0.5 + 2 * (row + 0.5) / 12
    x1, y1, x2, y2 = novelty.place
    assert x1 - 0.1 < x < x2 + 0.1 and y1 - 0.1 < y < y2 + 0.1
    assert (levels[:, :6] > 4).mean() < 0.1, "the left half is as known"
    assert novelty.to_json()["map"] == {"box": [0, -0.5, 1, 1.5], "rows": list(novelty.map.rows)}

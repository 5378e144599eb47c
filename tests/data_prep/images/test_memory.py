"""What is held in memory at a time: pixels over all threads, deep greys, records on their way to a file."""

import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_prep.annotations import AnnotatedImage, AnnotatedSource
from data_prep.commands.convert import prepare_all
from data_prep.images import decode as decoding
from data_prep.images import units
from data_prep.images.decode import PixelBudget
from data_prep.images.store import ImageStore
from data_prep.recipe.schema import Recipe
from llava.common.errors import InputError
from llava.common.files import write_json, write_json_list
from llava.common.images import DecodedImage, decode, open_image
from llava.common.records import Record, Turn
from llava.common.settings import load_settings

SIDE = 40


@pytest.fixture
def source(tmp_path: Path) -> AnnotatedSource:
    """Twelve small pictures among which one is four times as large."""
    found = []
    for number in range(12):
        side = 2 * SIDE if number == 5 else SIDE
        pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
        file = tmp_path / f"{number:02d}.png"
        Image.fromarray(pixels).save(file)
        found.append(AnnotatedImage(file, file.stem))
    return AnnotatedSource("x", tuple(found))


@pytest.mark.parametrize("room", [3, 4, 100])
def test_threads_hold_no_more_pixels_than_there_is_room_for(
    repo: Path, tmp_path: Path, source: AnnotatedSource, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """In units of a small picture. The large one is 4: with room for 3 it is read alone."""
    lock, held, most, together = threading.Lock(), 0, 0, []
    real, encode = decode, units.encode_part

    def counted(*given: Any) -> DecodedImage:
        nonlocal held, most
        opened = real(*given)
        with lock:
            held += opened.image.width * opened.image.height // SIDE**2
            most = max(most, held)
        return opened

    def let_go(image: Image.Image, *more: Any) -> bytes:
        nonlocal held
        time.sleep(0.01)  # long enough for others to come
        data = encode(image, *more)
        with lock:
            if image.width > SIDE:
                together.append(held)
            held -= image.width * image.height // SIDE**2
        return data

    monkeypatch.setattr(decoding, "decode", counted)
    monkeypatch.setattr(units, "encode_part", let_go)
    monkeypatch.setattr(decoding, "_IN_MEMORY", PixelBudget(room * SIDE**2))
    recipe = load_settings(Recipe, repo / "configs" / "recipes" / "vqa.yaml")
    (tmp_path / "out").mkdir()
    (made,) = prepare_all([source], recipe, ImageStore(tmp_path / "out", recipe.pictures), workers=8)
    assert [item.key for item in made] == [given.key for given in source.images]
    assert most <= max(room, 4) and (room == 100) == (most > 4)
    if room <= 4:
        assert together == [4], "the large picture is alone"


def test_room_comes_back_from_an_image_that_cannot_be_read(
    repo: Path, tmp_path: Path, source: AnnotatedSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    for image in source.images[:-1]:
        data = image.file.read_bytes()
        image.file.write_bytes(data[: len(data) // 2])
    budget = PixelBudget(SIDE**2)
    monkeypatch.setattr(decoding, "_IN_MEMORY", budget)
    recipe = load_settings(Recipe, repo / "configs" / "recipes" / "vqa.yaml")
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="11 picture"):
        prepare_all([source], recipe, ImageStore(tmp_path / "out", recipe.pictures), workers=3)
    with budget.reserve(SIDE**2):
        pass


def test_who_waits_for_room_gets_it() -> None:
    budget, order = PixelBudget(10), list[int]()

    def work(pixels: int) -> None:
        with budget.reserve(pixels):
            order.append(pixels)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, [3, 50, 10, 1, 7, 0, 11, 4] * 20))
    assert len(order) == 160


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_a_deep_grey_takes_little_more_than_itself(tmp_path: Path, dtype: type) -> None:
    """And is rescaled as by the plain formula, in double precision."""
    values: Any = np.random.default_rng(0).integers(1_000, 60_000, (1500, 2000)).astype(dtype)
    Image.fromarray(values).save(tmp_path / "deep.tif")
    tracemalloc.start()
    image = open_image(tmp_path / "deep.tif")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    low, high = np.percentile(values, (0.5, 99.5), method="nearest").astype(float)
    plain = ((np.clip(values.astype(float), low, high) - low) / (high - low) * 255).round()
    assert (np.asarray(image)[..., 0] == plain).all()
    assert peak < 16 * values.size + (40 << 20), f"{peak / values.size:.1f} bytes a pixel"


def test_records_stream_to_the_same_bytes(tmp_path: Path) -> None:
    said = [("human", "<image>\nWas\u2028ist\ndas?"), ("gpt", '"ä"')]
    turns = [Turn.model_validate({"from": who, "value": text}) for who, text in said]
    records = [
        Record(id=str(n), image=f"{n}.jpg", conversations=turns, meta={"a": [], "b": {}}) for n in range(3)
    ]
    lists: list[list[Any]] = [[], records[:1], records, [{}, [1, [2]], "x\n", None]]
    for some in lists:
        write_json(tmp_path / "whole.json", some)
        write_json_list(tmp_path / "list.json", iter(some))
        assert (tmp_path / "list.json").read_bytes() == (tmp_path / "whole.json").read_bytes()


def test_a_list_that_breaks_off_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise KeyboardInterrupt

    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(KeyboardInterrupt):
        write_json_list(tmp_path / "list.json", broken())
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("list.json", "[]")]

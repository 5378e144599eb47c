"""BlendFile conversations blended into train.json."""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_prep.__main__ import main as data_prep
from data_prep.blend import BlendFile, blend, open_blend_file
from data_prep.command_lines import add_blend
from data_prep.images.fingerprint import fingerprint
from data_prep.images.store import ImageStore
from data_prep.recipe.schema import Recipe
from llava.common.errors import InputError
from llava.common.files import read_json, read_json_list, sha256, write_json
from llava.common.images import open_image
from llava.common.records import Record
from llava.common.settings import load_settings


def record(id: object, *texts: str, image: object = None, **more: Any) -> dict[str, Any]:
    turns = [{"from": ("human", "gpt")[number % 2], "value": text} for number, text in enumerate(texts)]
    return {"id": id, "conversations": turns, **({} if image is None else {"image": image}), **more}


def paint(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


GENERAL = [
    *(
        record(f"c{n}", "<image>\nWhat is this?", f"A cat, number {n}.", image=f"coco/{n}.png")
        for n in range(6)
    ),
    record(17, "Hello", "Hi.", model="", meta={"task": "presence"}),
    record("one", "<image>\nAnd this?", "A cat.", image=["coco/0.png"]),
    record("two", "<image><image>Same?", "No.", image=["coco/0.png", "coco/1.png"]),
    record("absent", "<image>\nWhat is this?", "A dog.", image="coco/none.png"),
    record("outside", "<image>\nWhat is this?", "A dog.", image="../train.json"),
    record("turned", "Hello", "Hi.", "Bye"),
]


@pytest.fixture
def recipe(repo: Path) -> Recipe:
    return load_settings(Recipe, repo / "configs" / "recipes" / "insulator.yaml")


@pytest.fixture
def general(tmp_path: Path) -> Callable[..., BlendFile]:
    """Writes GENERAL (or other records) with its images, and returns what the options make of it."""
    for number in range(6):
        paint(tmp_path / "general" / "coco" / f"{number}.png", number)

    def find(share: float, records: list[Any] = GENERAL, images: bool = True) -> BlendFile:
        file = tmp_path / "mix.json"
        file.write_text(json.dumps(records))
        options = ["--blend", str(file), "--blend-share", str(share)]
        if images:
            options += ["--blend-image-folder", str(tmp_path / "general")]
        found = open_blend_file(parsed(*options))
        assert found is not None
        return found

    return find


def parsed(*options: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_blend(parser)
    return parser.parse_args(options)


def train_folder(folder: Path, count: int = 12) -> Path:
    folder.mkdir()
    records = [record(f"{n:016x}", "<image>\nBroken?", "no", image="images/x.jpg") for n in range(count)]
    for split, kept in (("train", records), ("val", records[:1]), ("test", [])):
        write_json(folder / f"{split}.json", kept)
    return folder


@pytest.fixture
def mix(tmp_path: Path, recipe: Recipe) -> Callable[..., tuple[Path, dict[str, Any]]]:
    def run(
        found: BlendFile, seed: int = 0, name: str = "out", held_out: Sequence[bytes] = ()
    ) -> tuple[Path, dict[str, Any]]:
        folder = train_folder(tmp_path / name)
        store = ImageStore(folder, recipe.pictures)
        return folder, blend(found, folder, recipe, store, seed, workers=2, held_out=held_out)

    return run


def test_the_share_is_of_the_result(general: Callable, mix: Callable) -> None:
    folder, facts = mix(general(0.25))
    records = read_json_list(folder / "train.json", Record)
    mixed = [item for item in records if item.meta.get("task") == "general"]
    assert (len(records), len(mixed)) == (16, 4)
    assert records[:12] == read_json_list(train_folder(folder.parent / "plain") / "train.json", Record)
    assert len({item.id for item in records}) == len(records)
    assert facts["records"] == 4 and facts["share"] == 0.25
    assert facts["left_out"] == {
        "records that do not follow LLaVA's rules": 1,
        "records whose picture is absent": 2,
        "records with several pictures": 1,
    }
    assert facts["pictures"] == sorted({name for item in mixed for name in item.images})


def test_images_are_written_like_all_others_and_the_words_are_kept(general: Callable, mix: Callable) -> None:
    folder, facts = mix(general(0.4))  # all eight that can be used
    mixed = read_json_list(folder / "train.json", Record)[12:]
    by_source = {item.meta["source"]: item for item in mixed}
    assert sorted(by_source) == [f"mix.json#{position}" for position in range(8)]
    for position, item in enumerate(by_source[f"mix.json#{number}"] for number in range(8)):
        assert [turn.value for turn in item.conversations] == [
            turn["value"] for turn in GENERAL[position]["conversations"]
        ]
        assert item.meta == {"task": "general", "source": f"mix.json#{position}", "flip": False}
        assert all(name.startswith("images/") and "coco" not in name for name in item.images)
    assert by_source["mix.json#7"].image == by_source["mix.json#0"].image
    assert by_source["mix.json#6"].images == []
    written = {f"images/{path.name}" for path in (folder / "images").iterdir()}
    assert written == set(facts["pictures"]) and len(written) == 6
    with Image.open(folder / facts["pictures"][0]) as image:
        assert (image.format, image.size) == ("JPEG", (32, 24))


def test_the_seed_decides_which(general: Callable, mix: Callable) -> None:
    found = general(0.25)

    def drawn(seed: int, name: str) -> tuple[bytes, list[str]]:
        folder, _ = mix(found, seed, name)
        sources = [item["meta"]["source"] for item in read_json(folder / "train.json")[12:]]
        return (folder / "train.json").read_bytes(), sources

    assert drawn(0, "a") == drawn(0, "b")
    assert len({tuple(drawn(seed, f"c{seed}")[1]) for seed in range(4)}) > 1


def test_too_few_records_name_the_possible_share(general: Callable, mix: Callable, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        mix(general(0.5))
    text = str(error.value)
    assert "12 record(s) make a share of 0.5 beside 12, and 8 can be used" in text
    assert "the largest share possible is 0.4; left out: " in text
    assert len(read_json(tmp_path / "out" / "train.json")) == 12
    mix(general(0.4), name="possible")
    with pytest.raises(InputError, match=r"1 can be used; the largest share possible is 0\.076"):
        mix(general(0.5, images=False), name="words")


def test_a_damaged_image_is_named(general: Callable, mix: Callable, tmp_path: Path) -> None:
    found = general(0.4)
    damaged = tmp_path / "general" / "coco" / "3.png"
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(InputError, match=r"coco/3\.png"):
        mix(found)


def test_a_held_out_image_does_not_come_back(general: Callable, mix: Callable, tmp_path: Path) -> None:
    found = general(0.4)
    shown = open_image(tmp_path / "general" / "coco" / "3.png")
    near = bytes(min(grey + 3, 255) for grey in fingerprint(shown))  # a brighter copy
    with pytest.raises(InputError, match=r"its picture coco/3\.png looks like one of val or test; take"):
        mix(found, held_out=[bytes(1024), near])
    far = bytes(reversed(range(256))) * 4
    mix(found, name="other", held_out=[far, far])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--blend-share", "0.2"), "--blend-share needs --blend"),
        (("--blend-image-folder", "x"), "--blend-image-folder needs --blend"),
        (("--blend", "mix.json"), "needs --blend-share"),
        (("--blend", "mix.json", "--blend-share", "1"), "between 0 and 1"),
        (("--blend", "mix.json", "--blend-share", "nan"), "between 0 and 1"),
        (("--blend", "none.json", "--blend-share", "0.1"), "none.json: no such file"),
        (("--blend", "x", "--blend-share", "0.1", "--blend-image-folder", "none"), "none: no such folder"),
    ],
)
def test_options_that_do_not_go_together(options: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_blend_file(parsed(*options))


def test_no_options_blend_nothing() -> None:
    assert open_blend_file(parsed()) is None


def test_a_file_that_is_no_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mix.json").write_text('[{"id": "1"')
    with pytest.raises(InputError, match=r"mix\.json, line 1: not valid JSON"):
        open_blend_file(parsed("--blend", str(tmp_path / "mix.json"), "--blend-share", "0.1"))


def test_convert_blends(
    repo: Path, tmp_path: Path, general: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole command, twice: the same bytes, and images that `check` can open."""
    for number in range(12):
        paint(tmp_path / "photos" / "photos" / f"{number}.jpg", 100 + number)
        box = "<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>30</xmax><ymax>20</ymax></bndbox>"
        name = "bird nest" if number % 2 else "insulator"
        (tmp_path / "photos" / f"{number}.xml").write_text(
            f"<annotation><object><name>{name}</name>{box}</object></annotation>"
        )
    general(0.1)
    options = ["--source", str(tmp_path / "photos"), "--recipe", str(repo / "configs/recipes/insulator.yaml")]
    options += ["--blend", str(tmp_path / "mix.json"), "--blend-image-folder", str(tmp_path / "general")]
    for output in ("first", "second"):
        code = data_prep(["convert", *options, "--blend-share", "0.1", "--output", str(tmp_path / output)])
        assert code == 0
    first, second = ((tmp_path / output / "train.json").read_bytes() for output in ("first", "second"))
    assert first == second
    records = read_json_list(tmp_path / "first" / "train.json", Record)
    mixed = [item for item in records if item.meta["task"] == "general"]
    assert mixed and len(mixed) == round(0.1 * len(records))
    manifest = read_json(tmp_path / "first" / "manifest.json")
    assert manifest["blend"]["records"] == len(mixed)
    # A second run over the first knows the blended images too.
    known = (tmp_path / "first" / "cache.json").read_bytes()
    with monkeypatch.context() as context:
        context.setattr(
            "data_prep.images.decode.decode", lambda _, file, __: pytest.fail(f"{file} decoded again")
        )
        again = ["--blend-share", "0.1", "--output", str(tmp_path / "first"), "--overwrite"]
        assert data_prep(["convert", *options, *again]) == 0
    assert (tmp_path / "first" / "train.json").read_bytes() == first
    assert (tmp_path / "first" / "cache.json").read_bytes() == known
    assert manifest["sha256"]["train.json"] == sha256(tmp_path / "first" / "train.json")
    for name in manifest["blend"]["pictures"]:
        open_image(tmp_path / "first" / name)
    general(0.1, GENERAL[:6])
    test_photo = next(facts["source"] for facts in manifest["pictures"].values() if facts["split"] == "test")
    photo = open_image(tmp_path / "photos" / f"{test_photo}.jpg")
    for number in range(6):
        photo.save(tmp_path / "general" / "coco" / f"{number}.png")
    with pytest.raises(InputError, match="looks like one of val or test"):
        data_prep(["convert", *options, "--blend-share", "0.05", "--output", str(tmp_path / "third")])
    assert not (tmp_path / "third").exists()

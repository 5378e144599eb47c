"""The token cache: it holds what the processor makes of each record, is made once, and follows the data."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from llava.common.errors import InputError
from llava.common.json_stream import stream_records
from llava.common.records import Record
from llava.train.__main__ import main
from llava.train.config import AugmentSettings
from llava.train.data import token_cache
from llava.train.data.image_files import ImageFiles
from llava.train.data.packing import IGNORE
from llava.train.data.record_files import read_records as read_file
from llava.train.data.token_cache import turns_of
from llava.train.dataset import TrainingSet
from llava.train.trainer import LoraTrainer
from tests.support.family_models import save_family
from tests.support.record_sets import no_bar, read_records
from tests.support.train_data import ask, many, write_config, write_data

FAMILIES = ("llava", "llava_next-mistral", "llava_onevision-qwen2")


def varied(folder: Path) -> list[dict[str, Any]]:
    """Records of one picture, two and none, of several turns, in three alphabets; writes their file."""
    turns = ask("turns", "p1.png", "What is it?", "A disc.")
    turns["conversations"] += [{"from": "human", "value": "Sure?"}, {"from": "gpt", "value": "Да, конечно."}]
    records = [*many(3, 4), ask("text", None, "Hello?", "Hi."), turns | {"meta": {"flip": None, "task": "x"}}]
    path = write_data(folder, records)
    records.append(ask("both", None, "<image> or <image>?", "절연체.") | {"image": ["p0.png", "p2.png"]})
    path.write_text(json.dumps(records), encoding="utf-8")
    return records


@pytest.fixture
def base_of(tiny_model_dir: Path, tmp_path: Path) -> Callable[[str], Path]:
    def make(family: str) -> Path:
        if family == "llava":
            return tiny_model_dir
        return save_family(tiny_model_dir, tmp_path / "base", family, scale=0.05)

    return make


@pytest.mark.parametrize("family", FAMILIES)
def test_it_holds_what_the_processor_makes_of_each_record(
    base_of: Callable[[str], Path], tmp_path: Path, family: str
) -> None:
    records = [Record.model_validate(record) for record in varied(tmp_path)]
    read = read_records(base_of(family), tmp_path)
    assert list(read.records) == records
    for record, index in zip(records, range(len(records)), strict=True):
        sizes = [(30, 50)] * len(record.images)  # of the noise that write_data makes
        expected = read.processor.encode(turns_of(record), sizes)
        encoded = read.encoded[index]
        ids, labels = encoded.written_out()
        assert (ids.tolist(), labels.tolist()) == (expected.input_ids, expected.labels)
        assert len(encoded) == len(expected.input_ids) == read.table.lengths[index]
        assert read.table.supervised[index] == sum(label != IGNORE for label in expected.labels)
        assert (len(encoded.input_ids) < len(encoded)) == bool(record.images)
    for example in range(len(read)):
        groups = read.group([read.encoded[index] for index in read.examples[example]])
        assert read.lengths(example) == [group.length for group in groups]
    assert sorted(index for indices in read.examples for index in indices) == list(range(len(records)))


def test_it_is_made_once_and_again_for_other_data(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    varied(tmp_path)
    made: list[Path] = []

    def read(path: Path, places: dict[str, Any]) -> Iterator[Record]:
        made.append(path)
        return read_file(path, places)

    monkeypatch.setattr(token_cache, "read_records", read)

    def is_made(**settings: Any) -> bool:
        made.clear()
        read_records(tiny_model_dir, tmp_path, **settings)
        return bool(made)

    assert is_made()
    assert not is_made()
    assert is_made(max_length=500) and is_made(packing=False) and is_made(conv_mode="llava_v0")
    assert not is_made()
    data = tmp_path / "train.json"
    data.write_text(data.read_text().replace("Question 1?", "Question one?"))
    assert is_made() and not is_made()
    Image.new("RGB", (60, 40)).save(tmp_path / "p1.png")
    assert is_made() and not is_made()
    os.utime(tmp_path / "p1.png", ns=(0, 0))
    assert is_made() and not is_made()


def test_another_process_maps_the_same_files(tiny_model_dir: Path, tmp_path: Path) -> None:
    varied(tmp_path)
    table = read_records(tiny_model_dir, tmp_path).table
    other = pickle.loads(pickle.dumps(table))
    assert len(pickle.dumps(table)) < 500
    assert np.array_equal(other.encoded(3).input_ids, table.encoded(3).input_ids)


def test_a_worker_may_get_the_examples_by_pickle(tiny_model_dir: Path, tmp_path: Path) -> None:
    """As on systems where worker processes are not forked."""
    varied(tmp_path)
    examples = TrainingSet(
        read_records(tiny_model_dir, tmp_path),
        seed=0,
        questions_per_picture=2,
        augmentation=AugmentSettings(flip_horizontal=0.5),
    )
    other = pickle.loads(pickle.dumps(examples))
    for index in range(len(examples)):
        mine, theirs = examples[index], other[index]
        assert [group.length for group in mine.groups] == [group.length for group in theirs.groups]
        assert all(torch.equal(mine.pixels[key].patches, theirs.pixels[key].patches) for key in mine.pixels)


@pytest.mark.parametrize("form", ["jsonl", "parquet", "datasets"])
def test_other_forms_of_file_hold_the_same_records(tmp_path: Path, form: str) -> None:
    # Arrow wants one type in a column: all images as lists
    records = [record | {"image": [record["image"]]} for record in many(2, 3)]
    records[0]["meta"] = {"task": "where", "flip": True}
    (tmp_path / "train.json").write_text(json.dumps(records))
    path = tmp_path / f"train.{form}"
    if form == "jsonl":
        path.write_text("\n".join(map(json.dumps, records)))
    else:
        datasets = pytest.importorskip("datasets")
        rows = datasets.Dataset.from_list(records)
        rows.to_parquet(path) if form == "parquet" else rows.save_to_disk(path)
    assert list(read_file(path)) == list(read_file(tmp_path / "train.json"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '[{"id": "a"}]', r"a.json, record 0 \(id 'a'\): conversations: Field required"),
        ("a.json", '[{"id": "\\ud800"}]', "a.json, line 1: .*half of a character"),
        ("a.json", '{"id": "a"}', "expected a JSON list"),
        ("a.jsonl", '{"id": "a"\n', "a.jsonl, line 1: not valid JSON"),
        ("a.parquet", "no table", "a.parquet: not a table that pyarrow can read"),
        ("a/x", "", "a is a folder, but not one that `datasets` saved"),
        ("a/dataset_dict.json", "{}", "a holds several data sets"),
        ("a/state.json", "{}", "state.json names no data files"),
        ("a/state.json", '{"_data_files": [{"filename": "../../b.arrow"}]}', "a/b.arrow: no such file"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        list(read_file(tmp_path / name.split("/")[0]))


def test_a_picture_is_judged_by_its_beginning_and_end(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    for suffix in ("jpg", "png", "bmp", "webp"):
        whole, cut = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
        Image.fromarray(noise).save(whole)
        size = whole.stat().st_size
        facts = ImageFiles(tmp_path, {}).check(whole.name)
        assert (facts.size, facts.height, facts.width) == (size, 60, 80)
        cut.write_bytes(whole.read_bytes()[: size // 2])
        with pytest.raises(InputError, match=f"cut.{suffix}"):
            ImageFiles(tmp_path, {}).check(cut.name)
    # what a camera adds behind the end is no damage
    (tmp_path / "more.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes() + bytes(1000))
    ImageFiles(tmp_path, {}).check("more.jpg")


def test_a_failed_encoding_leaves_nothing(tiny_model_dir: Path, tmp_path: Path) -> None:
    records = varied(tmp_path)
    records.append(ask("last", "absent.png", "What?", "That."))
    (tmp_path / "train.json").write_text(json.dumps(records))
    with pytest.raises(InputError, match=r"record 'last': .*absent\.png"):
        read_records(tiny_model_dir, tmp_path)
    assert not list((tmp_path / "token_cache").iterdir())


def test_verify_names_every_damaged_picture(tiny_model_dir: Path, tmp_path: Path) -> None:
    write_data(tmp_path, many(5, 1))
    read = read_records(tiny_model_dir, tmp_path)
    for name in ("p1.png", "p4.png"):
        data = bytearray((tmp_path / name).read_bytes())
        data[len(data) // 2] ^= 0xFF
        (tmp_path / name).write_bytes(bytes(data))
    first, second = read.verify(no_bar, slice(None))
    assert "p1.png" in first and "p4.png" in second
    assert len(read.verify(no_bar, slice(0, None, 2))) == 1
    with pytest.raises(InputError, match=r"record 'r4-0': .*p4\.png"):
        read.example(4)
    assert read.images.cache.find(0) is not None  # what was decoded is kept


def test_a_long_file_is_read_in_parts(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_data(tmp_path, many(4, 5))
    whole = read_records(tiny_model_dir, tmp_path)
    monkeypatch.setattr(token_cache, "_CHUNK", 3)
    parts = read_records(tiny_model_dir, tmp_path, max_length=511)
    for one, other in zip(whole.encoded, parts.encoded, strict=True):
        assert one.input_ids.tolist() == other.input_ids.tolist()
    assert [record.id for record in parts.records] == [value["id"] for _, value in stream_records(path)]


def test_a_run_removes_its_cache_when_it_is_finished(tiny_model_dir: Path, tmp_path: Path) -> None:
    folder, run, kept = tmp_path / "data", tmp_path / "run", tmp_path / "cache"
    folder.mkdir()
    write_data(folder, many(3, 2))
    config = write_config(tiny_model_dir, folder, run, eval_generate_samples=0)

    def stop(self: LoraTrainer) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(LoraTrainer, "finish", stop)
        main([config, "max_steps=1"])
    (table,) = (run / "token_cache").iterdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_cache, "read_records", stop)  # a resumed run does not read them again
        assert main([config, "max_steps=2", "--resume", "auto"]) == 0
    assert not (run / "token_cache").exists()
    assert main([config, "max_steps=1", f"token_cache={kept}", "overwrite_output_dir=true", "--verify"]) == 0
    assert [path.name for path in kept.iterdir()] == [table.name] and not (run / "token_cache").exists()

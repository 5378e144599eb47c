"""WebDataset shards: they hold the records and pixels of the files that were packed into them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch

from llava.common.errors import InputError
from llava.train.__main__ import main
from llava.train.data.record_files import read_records as read_file
from llava.train.data.shards import Place, read_shard, shards_of
from tests.support.record_sets import read_records
from tests.support.s3 import s3_server, send
from tests.support.train_data import ask, many, write_config, write_data


def write_shard(path: Path, members: dict[str, bytes]) -> Path:
    """A tar file as webdataset.TarWriter makes one."""
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def packed(folder: Path, records: list[dict[str, Any]], shards: Path) -> Path:
    """The records of a folder in two shards, those of a picture together."""
    shards.mkdir()
    parts: list[dict[str, bytes]] = [{}, {}]
    for number, name in enumerate(sorted({record["image"] for record in records})):
        part, key = parts[number % 2], f"{number:04d}"
        mine = [{**record, "image": f"{key}.png"} for record in records if record["image"] == name]
        part[f"{key}.json"] = json.dumps(mine).encode()
        part[f"{key}.png"] = (folder / name).read_bytes()
    for number, part in enumerate(parts):
        write_shard(shards / f"train-{number}.tar", part)
    return shards


def test_shards_hold_what_the_folder_holds(tiny_model_dir: Path, tmp_path: Path) -> None:
    records = many(5, 3)
    write_data(tmp_path, records)
    shards = packed(tmp_path, records, tmp_path / "shards")
    plain = read_records(tiny_model_dir, tmp_path)
    read = read_records(tiny_model_dir, tmp_path, data_path=shards, image_folder=shards)
    places = {record.id: index for index, record in enumerate(read.records)}
    for index, record in enumerate(plain.records):
        other = places[record.id]
        assert plain.encoded[index].input_ids.tolist() == read.encoded[other].input_ids.tolist()
        (mine,), (theirs,) = plain.images.pixels_of(index).values(), read.images.pixels_of(other).values()
        assert torch.equal(mine.patches, theirs.patches) and mine.size == theirs.size
    assert len(places) == len(plain.records) and len(read) == 5
    assert read.table.image_name(0) == "train-0.tar/0000.png"


def test_a_model_is_trained_on_shards_at_an_address(tiny_model_dir: Path, tmp_path: Path) -> None:
    records = many(4, 2)
    write_data(tmp_path, records)
    shards = packed(tmp_path, records, tmp_path / "shards")
    config = write_config(tiny_model_dir, tmp_path, tmp_path / "run", eval_generate_samples=0, max_steps=1)
    adapters = []
    with s3_server() as s3:
        for data in (shards, send(s3, shards, "shards")):
            settings = [f"{key}={data}" for key in ("data_path", "val_path", "image_folder")]
            assert main([config, *settings, "overwrite_output_dir=true", "picture_cache_gb=0"]) == 0
            adapters.append((tmp_path / "run" / "adapter_model.safetensors").read_bytes())
    assert adapters[0] == adapters[1]


def test_a_folder_may_be_named_like_a_shard(tiny_model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "old.tar").mkdir()
    write_data(tmp_path, [ask("a", "old.tar/p0.png", "What?", "That.")])
    for _ in range(2):  # the second time from the token cache
        read = read_records(tiny_model_dir, tmp_path)
        assert list(read.images.pixels_of(0)) == ["old.tar/p0.png"]


def test_names_may_be_left_out(tmp_path: Path) -> None:
    def talk(**more: Any) -> bytes:
        record = ask("x", "y.jpg", "What?", "That.")
        return json.dumps({"conversations": record["conversations"]} | more).encode()

    two = talk(image=["b.left.jpg", "b.right.jpg"]).replace(b"<image>", b"<image> <image>")
    members = {
        "a.json": talk(),
        "a.jpg": b"12345",
        "d/b.right.jpg": b"1",
        "d/b.left.jpg": b"22",
        "d/b.json": two,
    }
    shard = write_shard(tmp_path / "s.tar", members)
    places: dict[str, Place] = {}
    first, second = read_file(shard, places)
    assert (first.id, first.image) == ("a", "s.tar/a.jpg")
    assert (second.id, second.image) == ("d/b", ["s.tar/d/b.left.jpg", "s.tar/d/b.right.jpg"])
    content = shard.read_bytes()
    for name, place in places.items():
        assert content[place.offset :][: place.length] == members[name.removeprefix("s.tar/")]
    assert shards_of(tmp_path) == [shard] and shards_of(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.jpg": b"1"}, "s.tar: sample 'a' has 0 files of JSON, not one"),
        ({"a.json": b"{"}, "s.tar, a.json: not valid JSON"),
        ({"a.json": b"[1]"}, "s.tar, a.json: expected a record or a list of records"),
        ({"a.json": b'{"image": "../b.jpg"}', "a.jpg": b"1"}, "its sample has no picture '../b.jpg'"),
        ({"a.json": b"{}"}, r"record 0 \(id 'a'\): conversations: Field required"),
    ],
)
def test_what_is_wrong_with_a_shard_is_named(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    shard = write_shard(tmp_path / "s.tar", members)
    with pytest.raises(InputError, match=message):
        list(read_file(shard))


def test_a_shard_that_is_cut_short_is_named(tiny_model_dir: Path, tmp_path: Path) -> None:
    records = many(2, 2)
    write_data(tmp_path, records)
    shards = packed(tmp_path, records, tmp_path / "shards")
    (shards / "train-1.tar").write_bytes(b"no tar file at all" * 100)
    with pytest.raises(InputError, match=r"train-1\.tar: no tar file, or a damaged one"):
        read_records(tiny_model_dir, tmp_path, data_path=shards, image_folder=shards)
    with pytest.raises(InputError, match=r"absent\.tar: no such file"):
        list(read_shard(tmp_path / "absent.tar", {}))

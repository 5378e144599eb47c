"""Files at addresses: found, listed, read in part and fetched from an S3 server on this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_prep.output import output_folder
from llava.common import remote
from llava.common.errors import InputError
from llava.common.files import atomic_folder, atomic_path, inside
from llava.common.images import look_at_image, open_image_at
from llava.train.__main__ import main
from tests.support.record_sets import read_records
from tests.support.s3 import BUCKET, s3_server, send
from tests.support.train_data import many, write_config, write_data


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    with s3_server() as system:
        yield system


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("s3://bucket/a b/c.jpg", "s3://bucket/a b/c.jpg"),
        ("gs://bucket", "gs://bucket"),
        ("memory://x/y", "memory://x/y"),
        ("/data/s3:/x", None),
        ("photos/a.jpg", None),
        ("C:/photos", None),
        ("a:b", None),
    ],
)
def test_an_address_is_known_from_a_path(text: str, address: str | None) -> None:
    assert remote.address_of(Path(text)) == address
    assert remote.shown(Path(text)) == (address or text)


def test_a_name_in_a_file_of_records_is_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a file that somebody sends could have this machine fetch what it names."""
    monkeypatch.chdir(tmp_path)
    for root in (Path(), tmp_path, Path("s3://bucket/photos")):
        for name in ("s3://other/x.jpg", "../x.jpg", "/x.jpg", "a/../../x.jpg"):
            if root == Path("s3://bucket/photos") and name.startswith("s3:"):
                continue  # a strange name within that bucket
            with pytest.raises(InputError, match="is outside"):
                inside(root, name)
    assert remote.address_of(inside(Path("s3://bucket/photos"), "a/b.jpg")) == "s3://bucket/photos/a/b.jpg"


def test_nothing_makes_a_folder_here_that_is_named_like_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    address = Path("s3://bucket/run")
    for write in (atomic_path, atomic_folder, output_folder):
        with pytest.raises(InputError, match=r"^s3://bucket/run: this is written to a folder here"):
            write(address).__enter__()
    assert not list(tmp_path.iterdir())


def test_files_are_found_listed_and_fetched_once(s3: Any, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.txt").write_bytes(b"0123456789")
    folder = send(s3, tmp_path, "listed")
    file = folder / "a" / "x.txt"
    assert remote.is_file(file) and remote.is_folder(folder) and not remote.is_folder(folder / "b")
    assert not remote.is_file(folder / "y.txt")
    listed = remote.list_files(folder)
    assert {name: facts.size for name, facts in listed.items()} == {"a/x.txt": 10}
    assert listed["a/x.txt"].changed > 1e18 and remote.facts(file) == listed["a/x.txt"]
    address = remote.address_of(file) or ""
    assert remote.read_bytes(address, 2, 5) == b"234" and remote.read_bytes(address, -3) == b"789"
    copy = remote.fetch(file, tmp_path / "fetched")
    assert copy.read_bytes() == b"0123456789"
    copy.write_bytes(b"mine")
    assert remote.fetch(file, tmp_path / "fetched").read_bytes() == b"mine"  # it was not fetched again
    remote.send_file(tmp_path / "a" / "x.txt", folder / "sent.txt")
    assert s3.cat_file(f"{BUCKET}/listed/sent.txt") == b"0123456789"


def test_an_image_is_looked_at_in_part_and_opened(s3: Any, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    for name in ("a.jpg", "a.png", "a.bmp"):
        Image.fromarray(noise).save(tmp_path / name, **({"quality": 95} if name == "a.jpg" else {}))
        (tmp_path / f"cut_{name}").write_bytes((tmp_path / name).read_bytes()[:-1000])
    folder = send(s3, tmp_path, "images")
    for name in ("a.jpg", "a.png", "a.bmp"):
        assert look_at_image(folder / name) == (300, 400)
        assert open_image_at(folder / name).tobytes() == open_image_at(tmp_path / name).tobytes()
        with pytest.raises(InputError, match=rf"^s3://photos/images/cut_{name}: .*damaged or cut short"):
            look_at_image(folder / f"cut_{name}")


def test_what_is_wrong_with_an_address_is_one_line(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"^s3://photos/none: no such file or folder$"):
        remote.read_bytes("s3://photos/none")
    with pytest.raises(InputError, match="no address of a kind that is known"):
        remote.read_bytes("ssh3://x/y")
    for address in ("ftp://me:secret@host/x", "s3://:secret@bucket/x"):
        with pytest.raises(InputError, match=r"^an address with a password") as raised:
            remote.read_bytes(address)
        assert "secret" not in str(raised.value)
    with pytest.raises(InputError, match=r"^s3://photos/a:b@c: no such file"):
        remote.read_bytes("s3://photos/a:b@c")
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(InputError, match=r"addresses need fsspec: .*cloud"):
        remote.read_bytes("s3://photos/x")


def test_a_model_is_trained_on_data_in_a_bucket_as_on_data_here(
    s3: Any, tiny_model_dir: Path, tmp_path: Path
) -> None:
    here = tmp_path / "data"
    here.mkdir()
    write_data(here, many(3, 2))
    there = send(s3, here, "training")
    adapters = []
    for name, data, workers in (("here", here, 0), ("there", there, 1)):
        run = tmp_path / name
        config = write_config(tiny_model_dir, here, run, eval_generate_samples=2, max_steps=2)
        changes = [f"{key}={data / 'train.json'}" for key in ("data_path", "val_path")]
        assert main([config, *changes, f"image_folder={data}", f"dataloader_workers={workers}"]) == 0
        adapters.append((run / "adapter_model.safetensors").read_bytes())
        assert not (run / "token_cache").exists()
    assert adapters[0] == adapters[1]
    with pytest.raises(InputError, match="image_folder s3://photos/training/none: no such folder"):
        main([config, f"image_folder={there}/none", "--dry-run"])


def test_pictures_elsewhere_that_change_are_seen(s3: Any, tiny_model_dir: Path, tmp_path: Path) -> None:
    write_data(tmp_path, many(2, 1))
    there = send(s3, tmp_path, "changing")
    first = read_records(tiny_model_dir, tmp_path, image_folder=there).table.files.tolist()
    Image.new("RGB", (80, 20)).save(tmp_path / "p1.png")
    s3.put_file(str(tmp_path / "p1.png"), f"{BUCKET}/changing/p1.png")
    second = read_records(tiny_model_dir, tmp_path, image_folder=there).table.files.tolist()
    assert first[0] == second[0] and second[1][2:4] == [20, 80] != first[1][2:4]

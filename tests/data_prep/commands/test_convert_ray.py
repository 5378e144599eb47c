"""`convert --ray` and `inspect --ray`: a Ray of two workers on this machine, one for all tests here."""

from __future__ import annotations

import json
import logging
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import PIL
import pytest
from PIL import Image

from data_prep.__main__ import main as data_prep
from data_prep.images.prepare import Preparation, prepare_images
from data_prep.images.store import ImageStore, name_of
from data_prep.recipe.schema import ImageSettings, Recipe
from llava.common.errors import InputError
from llava.common.settings import load_settings
from tests.support.photos import contents, write_pair, write_photos
from tests.support.warm import run_warm

RECIPE = ("--recipe", "insulator", "unit=object", "crops.min_side=8")
BLEND = ("--blend", "general.json", "--blend-image-folder", "general", "--blend-share", "0.05")


@pytest.fixture(scope="module")
def ray_address() -> Iterator[str]:
    ray = pytest.importorskip("ray", reason="scripts/setup.sh ray")
    ray.init(
        "local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=128 << 20,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with photos and general pictures to blend."""
    write_photos(tmp_path / "photos", 40)
    (tmp_path / "general").mkdir()
    records = []
    for number in range(30):
        pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "general" / f"{number}.png")
        turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": f"Cat {number}."}]
        records.append({"id": number, "image": f"{number}.png", "conversations": turns})
    (tmp_path / "general.json").write_text(json.dumps(records))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def arguments(output: str, *more: str) -> list[str]:
    """Relative names, as from a shell in the current folder."""
    return ["convert", "--source", "photos", *RECIPE, "--output", output, *more]


def on_ray(address: str, *given: str) -> CompletedProcess[str]:
    return run_warm("-m", "data_prep", *given, "--ray", address)


@pytest.mark.slow
def test_a_cluster_writes_what_one_machine_writes(work: Path, ray_address: str) -> None:
    data_prep(arguments("here", *BLEND))
    done = on_ray(ray_address, *arguments("there", *BLEND, "--ray-workers", "2"))
    assert done.returncode == 0, done.stderr
    first = contents(work / "here")
    assert {"report.html", "cache.json", "manifest.json", "train.json"} < first.keys()
    assert sum(name.startswith("images/") for name in first) > 40
    assert contents(work / "there") == first

    write_pair(work / "photos", "new", [("insulator", (5, 5, 75, 43))], seed=99)
    data_prep(arguments("here", "--overwrite"))
    before = {path.name: path.stat().st_mtime_ns for path in (work / "there" / "images").iterdir()}
    done = on_ray(ray_address, *arguments("there", "--overwrite"))
    assert done.returncode == 0, done.stderr
    assert contents(work / "there") == contents(work / "here") != first
    kept = {path.name: path.stat().st_mtime_ns for path in (work / "there" / "images").iterdir()}
    assert len(kept.keys() - before.keys()) == 1
    assert kept.items() & before.items() == {name: before[name] for name in kept.keys() & before}.items()


@pytest.mark.slow
def test_a_damaged_picture_is_reported_as_on_one_machine(work: Path, ray_address: str) -> None:
    photo = min((work / "photos" / "images").iterdir())
    photo.write_bytes(photo.read_bytes()[:300])
    with pytest.raises(InputError) as here:
        data_prep(arguments("out"))
    done = on_ray(ray_address, *arguments("out"))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"error: {here.value}"
    assert photo.name in str(here.value)
    assert not list(work.glob("*out*"))


@pytest.mark.slow
def test_inspect_finds_on_a_cluster_what_it_finds_here(work: Path, ray_address: str) -> None:
    photo = min((work / "photos" / "images").iterdir())
    photo.write_bytes(photo.read_bytes()[:300])
    flags = ["inspect", "--source", "photos", "--output"]
    data_prep([*flags, "here.html"])
    done = on_ray(ray_address, *flags, "there.html")
    assert done.returncode == 0, done.stderr
    assert (work / "there.html").read_bytes() == (work / "here.html").read_bytes()


MAP = """
import errno, os, signal, sys, time
from pathlib import Path
from data_prep.images.store import ImageStore
from data_prep.recipe.schema import ImageSettings
from llava.common.cluster import Cluster

class Watched(list):
    def __getitem__(self, key):
        sent.append(key.start)
        return super().__getitem__(key)

def square(folder, number):
    if number == 0:
        time.sleep(1)
    if number == 500 and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number

def fail(text, number):
    raise OSError(errno.ENOSPC, text, f"file {number}")

sent = []
with Cluster(sys.argv[1], 2) as cluster:
    found = []
    for number in cluster.map(square, Path(sys.argv[2]), Watched(range(1000))):
        found.append(number)
        assert len(sent) * 16 - len(found) <= 16 * 16, "too far ahead"
    assert found == [number * number for number in range(1000)]
    assert list(cluster.map(square, Path(), [])) == []
    try:
        list(cluster.map(fail, "full", [1, 2, 3]))
    except OSError as error:
        print(type(error).__name__, error.errno, error.filename)
    (gone := Path(sys.argv[2]) / "gone").mkdir()
    store = ImageStore(gone, ImageSettings())
    (gone / "images").rmdir()
    try:
        list(cluster.map(fail, store, [1]))
    except Exception as error:
        print(type(error).__name__, error)
try:
    Cluster(sys.argv[1], 3)
except Exception as error:
    print(error)
"""


@pytest.mark.slow
def test_results_come_in_order_though_a_worker_dies(tmp_path: Path, ray_address: str) -> None:
    done = run_warm("-c", MAP, ray_address, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "died").exists()
    full, not_shared, too_many = done.stdout.splitlines()[-3:]
    assert full == "OSError 28 file 1"
    assert not_shared.startswith(f"InputError {tmp_path} is not shared with ")
    assert too_many == "--ray-workers 3: each needs a CPU, the cluster has 2"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--ray", "127.0.0.1:1"), "--ray 127.0.0.1:1: no cluster can be reached .*refused"),
        (("--ray-workers", "2"), "--ray-workers is for --ray"),
    ],
)
def test_what_cannot_be(work: Path, more: tuple[str, ...], message: str) -> None:
    if "--ray" in more:
        pytest.importorskip("ray", reason="scripts/setup.sh ray")
    with pytest.raises(InputError, match=message):
        data_prep(arguments("out", *more))
    assert not list(work.glob("*out*"))


def test_without_ray_a_line_says_how_to_get_it(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"^--ray needs: .*ray"):
        data_prep(arguments("out", "--ray", "local"))
    assert not list(work.glob("*out*"))


def test_a_machine_that_would_write_elsewhere_or_otherwise_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sent(folder: Path) -> bytes:
        folder.mkdir()
        return pickle.dumps(ImageStore(folder, ImageSettings()))

    assert pickle.loads(sent(tmp_path / "a")).folder == tmp_path / "a"
    not_here = sent(tmp_path / "b")
    (tmp_path / "b").rename(tmp_path / "c")
    with pytest.raises(InputError, match="is not shared with"):
        pickle.loads(not_here)
    other = sent(tmp_path / "d")
    monkeypatch.setattr(PIL, "__version__", "1.0")
    with pytest.raises(InputError, match="install the same Pillow on all"):
        pickle.loads(other)


def test_what_a_killed_worker_left_is_not_taken_for_an_image(repo: Path, tmp_path: Path) -> None:
    recipe = load_settings(Recipe, repo / "configs" / "recipes" / "insulator.yaml")
    store = ImageStore(tmp_path, recipe.pictures)
    name = name_of(b"all of it")
    half = tmp_path / "images" / f".{Path(name).name}.0a1b2c3d"
    half.write_bytes(b"all")
    assert store.write(b"all of it") == name
    assert (tmp_path / name).read_bytes() == b"all of it"
    assert prepare_images([], Preparation(recipe, {}, store), "pictures", 1) == []
    assert not half.exists()

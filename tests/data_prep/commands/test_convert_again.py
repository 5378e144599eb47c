"""Converting again: nothing is made or written twice, and no interrupt leaves half of anything."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data_prep.__main__ import main as data_prep
from data_prep.images import decode as decoding
from tests.support.paths import REPO
from tests.support.photos import contents, write_pair, write_photos

RECIPE = REPO / "configs" / "recipes" / "insulator.yaml"


def arguments(source: Path, output: Path, *more: str) -> list[str]:
    return ["convert", "--source", str(source), "--recipe", str(RECIPE), "--output", str(output), *more]


def convert(source: Path, output: Path, *more: str) -> Path:
    assert data_prep(arguments(source, output, *more)) == 0
    return output


def written(folder: Path) -> dict[str, tuple[int, int]]:
    """Which file each name is (inode) and when it was written."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos", 24)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The source pictures that are decoded from here on."""
    files: list[Path] = []
    real = decoding.decode

    def read(stored: Any, path: Path, warned: list[str]) -> Any:
        files.append(path)
        return real(stored, path, warned)

    monkeypatch.setattr(decoding, "decode", read)
    return files


@pytest.mark.parametrize("more", [[], ["unit=tile", "tiles.side=40"]])
def test_a_second_run_decodes_and_writes_nothing(
    photos: Path, tmp_path: Path, opened: list[Path], more: list[str]
) -> None:
    out = convert(photos, tmp_path / "out", *more)
    assert len(opened) == 24, "each picture is decoded once, however many units it has"
    before, folder = written(out), out.stat().st_ino
    time.sleep(0.02)
    convert(photos, out, "--overwrite", *more)
    assert len(opened) == 24 and written(out) == before and out.stat().st_ino == folder
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "photos"]


def test_only_what_changed_is_made_and_the_output_is_that_of_a_fresh_run(
    photos: Path, tmp_path: Path, opened: list[Path]
) -> None:
    out = convert(photos, tmp_path / "out")
    before, opened[:] = written(out), []
    write_pair(photos, "new", [("bird nest", (10, 10, 30, 30))], seed=99)
    (photos / "images" / "sound_000.jpg").rename(photos / "images" / "renamed.jpg")
    xml = photos / "annotations" / "sound_000.xml"
    xml.write_text(xml.read_text().replace("sound_000", "renamed"))
    convert(photos, out, "--overwrite", "--seed", "4")
    assert [path.name for path in opened] == ["new.jpg"], "a renamed picture is known by its content"
    after = written(out)
    kept = {name for name in before if name.startswith("images/")}
    assert len(kept) == 24 and all(after[name] == before[name] for name in kept)
    assert contents(out) == contents(convert(photos, tmp_path / "fresh", "--seed", "4"))


def test_other_settings_of_images_make_them_anew(photos: Path, tmp_path: Path, opened: list[Path]) -> None:
    out = convert(photos, tmp_path / "out")
    convert(photos, out, "--overwrite", "pictures.quality=80")
    assert len(opened) == 48
    assert contents(out) == contents(convert(photos, tmp_path / "fresh", "pictures.quality=80"))


@pytest.mark.parametrize(
    "damage", ["picture", "absent picture", "cache", "foreign cache", "unusable cache", "no cache"]
)
def test_a_damaged_earlier_output_is_made_good(photos: Path, tmp_path: Path, damage: str) -> None:
    out = convert(photos, tmp_path / "out")
    whole = contents(out)
    image = sorted((out / "images").iterdir())[3]
    cache = out / "cache.json"
    if damage == "picture":
        image.write_bytes(image.read_bytes()[:-20] + b"\0" * 20)
    elif damage == "absent picture":
        image.unlink()
    elif damage == "cache":
        cache.write_bytes(cache.read_bytes()[:-50])
    elif damage == "foreign cache":
        values = json.loads(cache.read_text())
        for known in values["pictures"].values():
            known["parts"] = dict.fromkeys(known["parts"], "../../photos/images/renamed.jpg")
        cache.write_text(json.dumps(values))
    elif damage == "unusable cache":
        values = json.loads(cache.read_text())
        for known in values["pictures"].values():
            known["fingerprint"] = "no hash"
        cache.write_text(json.dumps(values))
    else:
        cache.unlink()
    convert(photos, out, "--overwrite")
    assert contents(out) == whole


def test_nothing_of_the_sources_metadata_is_written(photos: Path, tmp_path: Path) -> None:
    """A comment or EXIF may say what the picture shows."""
    for path in (photos / "images").iterdir():
        exif = Image.Exif()
        exif[0x010E] = "secret: sound"
        with Image.open(path) as image:
            image.load()
        image.save(path, comment=b"secret: broken", exif=exif, icc_profile=b"secret")
    out = convert(photos, tmp_path / "out")
    assert not any(b"secret" in path.read_bytes() for path in (out / "images").iterdir())


def test_what_was_changed_in_images_is_told(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("sound_000", "sound_003"):
        file = photos / "images" / f"{name}.jpg"
        with Image.open(file) as image:
            clear = image.convert("RGBA")
        clear.putpixel((0, 0), (0, 0, 0, 0))
        buffer = io.BytesIO()
        clear.save(buffer, "PNG")
        file.write_bytes(buffer.getvalue())
    out = convert(photos, tmp_path / "out")
    manifest = json.loads((out / "manifest.json").read_text())
    told = {"transparent pixels laid on white": ["images/sound_000", "images/sound_003"]}
    assert manifest["changes"] == told
    assert (
        "changed: transparent pixels laid on white: 2 source picture(s), for instance "
        in capsys.readouterr().out
    )
    convert(photos, out, "--overwrite")  # known from the cache now
    assert json.loads((out / "manifest.json").read_text())["changes"] == told


@pytest.mark.parametrize("at", [1, 2])
def test_an_interrupt_between_the_renames(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    out = convert(photos, tmp_path / "out")
    before, real, calls = contents(out), Path.rename, []

    def rename(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == at:
            raise KeyboardInterrupt
        return real(self, target)

    with monkeypatch.context() as context:
        context.setattr(Path, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            data_prep(arguments(photos, out, "--overwrite", "--seed", "1"))
    assert contents(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "photos"]


def test_a_run_killed_between_the_renames_is_put_right(photos: Path, tmp_path: Path) -> None:
    out = convert(photos, tmp_path / "out")
    before = contents(out)
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    dead = int(gone.stdout)
    (tmp_path / f".out.{dead}.new" / "images").mkdir(parents=True)
    (tmp_path / f".out.{os.getppid()}.new").mkdir()  # of a run that is alive: left alone
    (tmp_path / f".other.{dead}.new").mkdir()
    out.rename(tmp_path / f".out.{dead}.old")
    convert(photos, out)
    assert contents(out) == before
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"out", "photos", f".out.{os.getppid()}.new", f".other.{dead}.new"}


@pytest.mark.parametrize("after", [0.3, 0.9])
def test_a_killed_run_leaves_the_old_output_and_the_next_one_finishes(
    photos: Path, tmp_path: Path, after: float
) -> None:
    out = convert(photos, tmp_path / "out", "pictures.quality=80")
    before = contents(out)
    expected = contents(convert(photos, tmp_path / "expected"))
    command = [sys.executable, "-m", "data_prep", *arguments(photos, out, "--overwrite", "--workers", "1")]
    with subprocess.Popen(command, cwd=REPO, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        deadline = time.monotonic() + 60
        while run.poll() is None and time.monotonic() < deadline:
            # Kill it when so much of its pictures is there.
            made = [*tmp_path.glob(".out.*.new/images/*")]
            if len(made) >= after * 24:
                run.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
    assert contents(out) in (before, expected)
    convert(photos, out, "--overwrite")
    assert contents(out) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expected", "out", "photos"]

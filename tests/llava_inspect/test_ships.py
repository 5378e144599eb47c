"""`llava-inspect configs` and `recipes`: what ships is listed, printed and copied with its bases."""

from __future__ import annotations

from pathlib import Path

import pytest

from llava.common.errors import InputError
from llava.common.settings import load_settings
from llava.train.config import TrainSettings
from llava_inspect.__main__ import main
from llava_inspect.ships import first_comment


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_line_for_each(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(path.stem for path in repo.glob("configs/*.yaml"))
    assert all(30 < len(line) <= 110 for line in lines)
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "insulator" in [line.split()[0] for line in lines] and all(len(line) > 30 for line in lines)


def test_one_is_printed(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "vqa"]) == 0
    assert capsys.readouterr().out == (repo / "configs/recipes/vqa.yaml").read_text(encoding="utf-8")


def test_a_copy_has_what_it_extends_beside_it(
    repo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["configs", "llava15_7b_lora", "--output", "mine/gpu.yaml"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "mine/gpu.yaml (a copy of llava15_7b_lora.yaml)",
        "mine/common/gpu.yaml (a copy of gpu.yaml)",
    ]
    original = load_settings(TrainSettings, repo / "configs/llava15_7b_lora.yaml")
    assert load_settings(TrainSettings, Path("mine/gpu.yaml")) == original
    # another config with the same base: the base is there
    assert main(["configs", "onevision_7b_lora", "--output", "mine/onevision.yaml"]) == 0
    assert capsys.readouterr().out == "mine/onevision.yaml (a copy of onevision_7b_lora.yaml)\n"


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    mine = tmp_path / "common" / "gpu.yaml"
    mine.parent.mkdir()
    mine.write_text("epochs: 3\n")
    with pytest.raises(InputError, match=r"common/gpu.yaml differs from the gpu.yaml that ships"):
        main(["configs", "llava15_7b_lora", "--output", "my.yaml"])
    with pytest.raises(InputError, match=r"common/gpu.yaml exists already; name another file"):
        main(["configs", "tiny_cpu", "--output", str(mine)])
    assert mine.read_text() == "epochs: 3\n" and not (tmp_path / "my.yaml").exists()


def test_a_copy_never_takes_the_place_of_what_it_extends(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="insulator_full extends a file of that name; name another"):
        main(["recipes", "insulator_full", "--output", "insulator.yaml"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["mine.yaml", "absent.yaml", "../x"])
def test_only_what_ships_is_copied(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine.yaml").write_text("extends: mine.yaml\n")
    with pytest.raises(InputError, match=r"does not ship; choose from .*, tiny_cpu"):
        main(["configs", name])


def test_the_list_shortens_no_name_of_an_author(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("# Tiles of Y. Huang et al. Two sizes.\nclasses: {}\n")
    assert first_comment(tmp_path / "a.yaml") == "Tiles of Y. Huang et al"

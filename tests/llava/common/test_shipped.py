"""Files that ship: found by path or name wherever a command runs, and nothing else of a checkout."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from llava.common import shipped
from llava.common.errors import InputError
from llava.common.shipped import find_config, find_recipe, find_shipped, names_in

TINY_BASE = Path("playground/tiny-llava")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "path", ["configs/tiny_cpu.yaml", "configs/deepspeed/zero2.json", "configs/recipes", str(TINY_BASE)]
)
def test_a_shipped_path_is_found_from_any_folder(repo: Path, path: str) -> None:
    assert find_shipped(Path(path)) == repo / path


@pytest.mark.parametrize("path", ["configs/tiny_cpu.yaml", "configs", str(TINY_BASE)])
def test_what_is_here_wins(tmp_path: Path, path: str) -> None:
    (tmp_path / path).mkdir(parents=True)
    assert find_shipped(Path(path)) == Path(path)


@pytest.mark.parametrize(
    "path",
    [
        "configs/none.yaml",
        "configs/../configs/tiny_cpu.yaml",
        "../configs/tiny_cpu.yaml",
        "/configs/tiny_cpu.yaml",
        "README.md",  # of the checkout, but it does not ship
        "llava/train",
        "playground",
        "tiny_cpu",
    ],
)
def test_nothing_else_is_found(path: str) -> None:
    assert find_shipped(Path(path)) == Path(path)


def test_installed_files_lie_in_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "llava"
    monkeypatch.setattr(shipped, "__file__", str(package / "common" / "shipped.py"))
    config = package / "shipped" / "configs" / "only_here.yaml"
    config.parent.mkdir(parents=True)
    config.touch()
    assert find_shipped(Path("configs/only_here.yaml")) == config
    assert find_config(Path("only_here")) == config


@pytest.mark.parametrize(
    ("find", "name", "path"),
    [
        (find_config, "llava15_7b_lora", "configs/llava15_7b_lora.yaml"),
        (find_recipe, "insulator", "configs/recipes/insulator.yaml"),
    ],
)
def test_names_of_what_ships(
    repo: Path, tmp_path: Path, find: Callable[[Path], Path], name: str, path: str
) -> None:
    assert find(Path(name)) == find(Path(path)) == repo / path
    (tmp_path / name).mkdir()  # a run of that name, say
    assert find(Path(name)) == repo / path
    (tmp_path / name).rmdir()
    (tmp_path / name).touch()
    assert find(Path(name)) == Path(name)


def test_an_unknown_name_lists_what_ships() -> None:
    with pytest.raises(InputError) as caught:
        find_recipe(Path("insulators"))
    assert str(caught.value) == (
        "insulators: no such file, and no recipe of that name ships: defect, insulator, insulator_discs, "
        "insulator_full, magnetic_tile, steel_surface, vqa"
    )
    with pytest.raises(InputError, match=r"no config of that name ships: .*, tiny_cpu$"):
        find_config(Path("insulator"))


@pytest.mark.parametrize("name", ["my.yaml", "folder/mine", "../tiny_cpu", "/tiny_cpu", "insulator.ko"])
def test_other_paths_are_left_to_whoever_reads_them(name: str) -> None:
    assert find_config(Path(name)) == find_recipe(Path(name)) == Path(name)


def test_every_name_is_found(repo: Path) -> None:
    configs = sorted(repo.glob("configs/*.yaml"))
    assert [find_config(Path(name)) for name in names_in(shipped.CONFIGS)] == configs
    recipes = [path for path in sorted(repo.glob("configs/recipes/*.yaml")) if path.stem.count(".") == 0]
    assert [find_recipe(Path(name)) for name in names_in(shipped.RECIPES)] == recipes


def test_setup_py_installs_the_same_folders(repo: Path) -> None:
    text = (repo / "setup.py").read_text(encoding="utf-8")
    (listed,) = re.findall(r"^SHIPPED = \((.*)\)$", text, re.MULTILINE)
    assert tuple(Path(name) for name in re.findall(r'"([^"]+)"', listed)) == shipped.SHIPPED

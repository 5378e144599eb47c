"""A model folder is opened once: its config.json is read once, whatever is asked of it."""

from __future__ import annotations

import ast
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import llava
from llava.common.errors import InputError
from llava.model.builder import load_model
from llava.model.folder import open_model_folder
from tests.support.original_folders import save_original
from tests.support.tiny_models import save_base, save_run

OURS = str(Path(llava.__file__).parent)
_watched: list[tuple[Path, list[bool]]] = []


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if _watched and event == "open" and str(arguments[0]) == str(_watched[-1][0]):
        callers = [frame.filename for frame in traceback.extract_stack(limit=12)]
        known = [name for name in callers if "site-packages" in name or name.startswith(OURS)]
        innermost = known[-1]
        _watched[-1][1].append(innermost.startswith(OURS))


sys.addaudithook(_note)


@contextmanager
def reads_of(path: Path) -> Iterator[list[bool]]:
    """For each time that `path` is opened in the block: whether our code opened it, not a library's."""
    reads: list[bool] = []
    _watched.append((path, reads))
    try:
        yield reads
    finally:
        _watched.pop()


def test_config_json_of_a_hugging_face_folder_is_read_once(tmp_path: Path) -> None:
    """By us: transformers 5 reads it once more, where it makes the tokenizer."""
    base = save_base(tmp_path / "base")
    with reads_of(base / "config.json") as reads:
        load_model(base, device="cpu")
    assert reads.count(True) == 1


def test_config_json_of_an_original_folder_is_read_once(tiny_model_dir: Path, tmp_path: Path) -> None:
    base, _ = save_original(tiny_model_dir, tmp_path / "base")
    with reads_of(base / "config.json") as reads:
        load_model(base, device="cpu")
    assert reads == [True]


def test_the_base_of_a_run_is_opened_once(tmp_path: Path) -> None:
    """Its config and its fingerprint come of one reading; tokenizer and image processor are the run's."""
    base = save_base(tmp_path / "base")
    run = save_run(tmp_path / "run", base)
    with reads_of(run / "run.json") as of_run:
        load_model(run, device="cpu")
    assert of_run == [True]
    with reads_of(base / "config.json") as reads:
        load_model(run, device="cpu")
    assert reads == [True]


def test_what_is_read_is_kept(tmp_path: Path) -> None:
    folder = open_model_folder(save_base(tmp_path / "base"))
    assert folder.config is folder.config and folder.tokenizer is folder.tokenizer
    assert open_model_folder(folder) is folder
    before = folder.config.to_dict()
    load_model(folder, device="cpu", attn_implementation="eager")
    assert folder.config.to_dict() == before


def test_only_a_whole_model_has_a_config(tmp_path: Path) -> None:
    run = open_model_folder(save_run(tmp_path / "run", save_base(tmp_path / "base")))
    assert run.run_info is not None and run.run_info.conv_mode == "v1"
    with pytest.raises(InputError, match="is a run directory, not a whole model; merge it first"):
        _ = run.config


def _imports(path: Path) -> set[str]:
    """The modules of llava that a file imports, inside functions too."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module is not None}


@pytest.mark.parametrize("package", ["model", "export"])
def test_no_import_runs_in_a_circle(package: str) -> None:
    root = Path(OURS)
    names = {
        ".".join(("llava", *path.relative_to(root).with_suffix("").parts)): path
        for path in (root / package).rglob("*.py")
    }
    imports = {name: _imports(path) & names.keys() for name, path in names.items()}
    assert len([*TopologicalSorter(imports).static_order()]) == len(names)

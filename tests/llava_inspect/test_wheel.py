"""The wheel, installed into an empty environment: the whole road works there, away from the checkout."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.paths import REPO

pytestmark = pytest.mark.slow

Run = Callable[..., str]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built from a copy of its files: nothing is written into the checkout."""
    if not (REPO / ".git").exists():
        pytest.skip("no git checkout: which files are the project's is not known")
    folder = tmp_path_factory.mktemp("wheel")
    source = copy_tracked_files(folder / "source")
    pip("wheel", source, "--no-deps", "--no-build-isolation", "--wheel-dir", folder)
    shutil.rmtree(source)  # what is installed must not need it
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a virtual environment that has this wheel and the libraries of the tests' own."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    pip("--python", python, "install", "--no-deps", "--no-index", wheel)
    (site,) = folder.glob("lib/python*/site-packages")
    # Only now: pip would take this environment's own llava-inspect for the one that it is to install. Folders
    # that a .pth names have their own .pth files ignored, so this environment's editable install stays out.
    libraries = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (site / "libraries.pth").write_text("\n".join(libraries), encoding="utf-8")
    return folder / "bin"


@pytest.fixture
def run(programs: Path, tmp_path: Path) -> Run:
    """Runs a program of the environment in an empty folder, without a network; returns its stdout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "NUM_GPUS": "1", "COLUMNS": "200"}
    environment["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"  # as if activated

    def run(program: str, *arguments: str, input: str = "", code: int = 0) -> str:
        done = subprocess.run(
            [programs / program, *arguments], cwd=tmp_path, env=environment, input=input,
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{arguments}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout + done.stderr if code else done.stdout

    return run


def copy_tracked_files(target: Path) -> Path:
    """Copy the files that git knows, or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPO, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (REPO / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPO / name, target / name)
    return target


def pip(*arguments: str | Path) -> None:
    """Run pip where it sees no checkout: it would take that one's metadata for what is installed."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=sys.prefix, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_the_wheel_holds_what_ships_and_no_more(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {
        f"llava/shipped/{path.relative_to(REPO)}"
        for folder in ("configs", "playground/tiny-llava")
        for path in (REPO / folder).rglob("*")
        if path.is_file()
    }
    assert {f"llava/shipped/configs/deepspeed/zero{stage}.json" for stage in ("2", "3")} < shipped
    assert shipped == {name for name in names if name.startswith("llava/shipped/")}
    packages = {"llava", "data_prep", "eval", "llava_inspect"}
    assert {f"{package}/py.typed" for package in packages} < names
    assert {"llava/common/html/style.css", "eval/report/report.css", "eval/report/report.js"} < names
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == packages
    modules = {str(path.relative_to(REPO)) for package in packages for path in (REPO / package).rglob("*.py")}
    assert modules == {name for name in names if name.endswith(".py")}


def test_the_environment_has_the_wheel_and_not_the_checkout(run: Run, programs: Path) -> None:
    code = "import llava.common.shipped as s; print(s.__file__, s.find_recipe(s.Path('vqa')))"
    for place in run("python", "-c", code).split():
        assert Path(place).is_relative_to(programs.parent), place


def test_configs_and_recipes_are_listed_and_copied(run: Run, tmp_path: Path) -> None:
    configs = run("llava-inspect", "configs")
    assert configs.count("\n") == len(list((REPO / "configs").glob("*.yaml")))
    assert "tiny_cpu                   Teaches the embedded base insulator inspection" in configs
    assert "insulator_full" in run("llava-inspect", "recipes")
    run("llava-inspect", "configs", "llava15_7b_lora", "--output", "mine/gpu.yaml")
    run("llava-inspect", "recipes", "insulator_full", "--output", "mine/recipe.yaml")
    copies = {
        "gpu.yaml": "configs/llava15_7b_lora.yaml",
        "common/gpu.yaml": "configs/common/gpu.yaml",
        "recipe.yaml": "configs/recipes/insulator_full.yaml",
        "insulator.yaml": "configs/recipes/insulator.yaml",
        "insulator.ko.yaml": "configs/recipes/insulator.ko.yaml",
        "insulator.ru.yaml": "configs/recipes/insulator.ru.yaml",
    }
    found = {str(path.relative_to(tmp_path / "mine")) for path in tmp_path.rglob("*.yaml")}
    assert found == copies.keys()
    for copy, original in copies.items():
        assert (tmp_path / "mine" / copy).read_bytes() == (REPO / original).read_bytes()
    # a copy is a config: the fault is in the data, which is not there
    said = run("llava-inspect", "train", "mine/gpu.yaml", "deepspeed=configs/deepspeed/zero2.json", code=2)
    assert said.endswith("no such file\n") and "zero2" not in said.splitlines()[-1]


def test_the_road(run: Run, tmp_path: Path) -> None:
    """From photos to a chat and to other clients, a command a step, each with little to do."""

    def command(line: str, **options: str) -> str:
        return run("llava-inspect", *line.split(), **options)

    command("scenes --output photos --count 24 --workers 1")
    photos = sorted((tmp_path / "photos").rglob("*.jpg"))
    assert len(photos) == 24
    assert "annotated pictures: 24" in command(
        "inspect --source photos --recipe insulator --output before.html"
    )
    assert "<style>" in (tmp_path / "before.html").read_text(encoding="utf-8")
    said = command(
        "run photos --recipe insulator --output mine max_steps=2 eval_steps=2 logging_steps=1 batch_size=2 "
        "eval_generate_samples=2"
    )
    assert "next: " not in said  # a run goes on by itself
    assert "mine/adapter: the adapter of step 2" in said
    assert "merged mine/adapter into mine/merged" in said
    assert "written to mine/scores/scores.json and mine/scores/report.html" in said
    assert "llava-inspect chat --model-path mine/merged --image-file mine/data/images/" in said
    said = command(
        "check mine/data/train.json mine/data/val.json mine/data/test.json --image-folder mine/data"
    )
    assert said.endswith("24 picture(s), all decoded: nothing found\n")
    page = (tmp_path / "mine" / "scores" / "report.html").read_text(encoding="utf-8")
    assert "<style>" in page and "<script>" in page and "data:image/jpeg" in page
    assert "presence: B the same answers" in command("compare mine/scores mine/scores")

    assert "wrote llava-v1.5-mine" in command(
        "export --format llava --model-path mine/merged --output llava-v1.5-mine"
    )
    assert (tmp_path / "llava-v1.5-mine" / "tokenizer.model").is_file()
    if importlib.util.find_spec("gguf"):
        assert "wrote gguf" in command("export --format gguf --model-path mine/merged --output gguf")
        assert {"model-f16.gguf", "mmproj-f16.gguf"} <= {path.name for path in (tmp_path / "gguf").iterdir()}
    said = command(f"chat --model-path mine/merged --image-file {photos[0]}", input="Is there a defect?\n")
    assert "ASSISTANT: " in said and said.endswith("exit...\n")

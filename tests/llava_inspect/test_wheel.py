"""The wheel, installed into an empty environment: there README's commands work, away from the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.pages import blocks
from tests.support.paths import REPO

pytestmark = pytest.mark.slow

Start = Callable[..., "subprocess.Popen[str]"]
Run = Callable[..., str]
FEW = "max_steps=3 eval_steps=3 logging_steps=1 batch_size=2 eval_generate_samples=2"


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
def start(programs: Path, tmp_path: Path) -> Start:
    """Starts a program as if the environment were activated, in an empty folder, without a network."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "NUM_GPUS": "1", "COLUMNS": "200"}
    environment["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"

    def start(*command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, cwd=tmp_path, env=environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    return start


@pytest.fixture
def run(start: Start) -> Run:
    """Runs a program as `start` does; returns its stdout."""

    def run(*command: str, code: int = 0) -> str:
        process = start(*command)
        try:
            said, errors = process.communicate(timeout=900)
        finally:
            process.kill()
        assert process.returncode == code, f"{command}\n{said[-3000:]}\n{errors[-3000:]}"
        return said + errors if code else said

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


def test_readmes_road(run: Run, start: Start, tmp_path: Path) -> None:
    """README's one command, which starts those that it consists of, then the survey and the services, with
    few photos and steps. tests/llava_inspect/test_pages.py gives the commands one by one."""

    def shell(script: str) -> str:
        (tmp_path / "block.sh").write_text(script, encoding="utf-8")
        return run("bash", "-euo", "pipefail", "block.sh")

    shell("llava-inspect scenes --output playground/data_train --count 40 --seed 5 --workers 1")
    photo = next((tmp_path / "playground" / "data_train").rglob("*.jpg"))
    (tmp_path / "playground" / "data_infer").mkdir()
    shutil.copy(photo, tmp_path / "playground" / "data_infer" / "new.jpg")
    whole, _ = blocks(REPO / "README.md", "Your own photos")
    whole = whole.replace(". .venv/bin/activate\n", "")
    whole = whole.replace("run playground/data_train", f"run playground/data_train {FEW}")
    whole, serve, web = re.split("# or let other programs ask|# or people who", whole)
    said = shell(whole)
    assert "May you rely on it?" in said and "runs/data_train/adapter: the adapter of step 3" in said
    assert "merged runs/data_train/adapter into runs/data_train/merged" in said
    page = (tmp_path / "runs/data_train/scores/report.html").read_text(encoding="utf-8")
    assert "<style>" in page and "<script>" in page and "data:image/jpeg" in page
    findings = (tmp_path / "runs/survey-data_infer/findings.csv").read_text(encoding="utf-8-sig")
    assert "new.jpg" in findings
    assert_serves(serve, "serving merged at http://127.0.0.1:", start)
    assert_serves(web, "open http://127.0.0.1:", start)


def assert_serves(block: str, line: str, start: Start) -> None:
    """Start the service of a block's last command, until it says where, and end it."""
    process = start(*block.strip().splitlines()[-1].split(), "--port", "0")
    try:
        assert process.stderr is not None
        assert any(line in said for said in process.stderr)
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()

"""`llava-inspect train`: which processes it starts, and what it refuses before it starts any."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from llava.common.errors import InputError
from llava.train.__main__ import parse_arguments
from llava_inspect import train
from llava_inspect.train import launch_command

MACHINES = ("NUM_GPUS", "NNODES", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK")
REQUIRED = "model_name_or_path: m\ndata_path: d.json\nimage_folder: i\noutput_dir: o\n"

Launch = Callable[..., list[str] | None]


@pytest.fixture(autouse=True)
def one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in MACHINES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NUM_GPUS", "1")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Launch:
    """What a config with `lines` beside the required ones starts, under these arguments and variables."""

    def launch(*arguments: str, lines: str = "", **environment: str) -> list[str] | None:
        (tmp_path / "c.yaml").write_text(REQUIRED + lines)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        argv = ["c.yaml", *arguments]
        return launch_command(argv, parse_arguments(argv)[1])

    return launch


def launched(processes: int, *arguments: str) -> list[str]:
    launcher = [
        "-m",
        "llava.common.launch",
        "--nnodes",
        "1",
        "--nproc-per-node",
        str(processes),
        "--standalone",
    ]
    return [sys.executable, *launcher, "-m", "llava.train", "c.yaml", *arguments]


@pytest.mark.parametrize("processes", ["0", "1"])
def test_one_process_needs_no_launcher(launch: Launch, processes: str) -> None:
    assert launch("epochs=3", "--resume", "auto", NUM_GPUS=processes) is None
    assert launch("--dry-run", "--gpus", "4x24", NNODES="1", NUM_GPUS=processes) is None


def test_a_process_for_each_gpu(launch: Launch) -> None:
    assert launch("--resume", "auto", NUM_GPUS="2") == launched(2, "--resume", "auto")


@pytest.mark.parametrize("variable", [None, ""])
def test_all_gpus_by_default(launch: Launch, monkeypatch: pytest.MonkeyPatch, variable: str | None) -> None:
    monkeypatch.setattr(train, "_count_gpus", lambda: 4)
    monkeypatch.delenv("NUM_GPUS")
    assert launch(**({} if variable is None else {"NUM_GPUS": variable})) == launched(4)


@pytest.mark.parametrize("processes", ["0", "1"])
@pytest.mark.parametrize(
    ("lines", "arguments"),
    [
        ("deepspeed: configs/deepspeed/zero2.json\n", []),
        ("", ["deepspeed=configs/deepspeed/zero3.json"]),
        ("deepspeed: null\n", ["deepspeed=configs/deepspeed/zero3.json", "epochs=2"]),
        ("fsdp: true\n", []),
        ("", ["fsdp=true"]),
        ("", ["--dry-run", "fsdp=true"]),
        ("extends: base.yaml\n", []),
    ],
)
def test_sharding_needs_the_launcher(
    launch: Launch, tmp_path: Path, lines: str, arguments: list[str], processes: str
) -> None:
    (tmp_path / "base.yaml").write_text("fsdp: true\n")
    assert launch(*arguments, lines=lines, NUM_GPUS=processes) == launched(1, *arguments)


@pytest.mark.parametrize(
    ("lines", "argument"),
    [("deepspeed: null\nfsdp: false\n", "epochs=2"), ("deepspeed: z.json\n", "deepspeed=null"),
     ("fsdp: true  # of the other machine\n", "fsdp=false")],
)  # fmt: skip
def test_sharding_that_is_switched_off(launch: Launch, lines: str, argument: str) -> None:
    assert launch(argument, lines=lines) is None


def test_several_machines(launch: Launch) -> None:
    command = launch(NNODES="2", NODE_RANK="1", MASTER_ADDR="10.0.0.1")
    assert command is not None
    assert command[3:] == [
        *("--nnodes", "2", "--nproc-per-node", "1", "--node-rank", "1", "--master-addr", "10.0.0.1"),
        *("--master-port", "29500", "-m", "llava.train", "c.yaml"),
    ]
    command = launch(NUM_GPUS="8", MASTER_PORT="1234")
    assert command is not None and "8" in command and "1234" in command and "--standalone" not in command


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"NUM_GPUS": "all"}, "NUM_GPUS=all is no number"),
        ({"NUM_GPUS": "-1"}, "NUM_GPUS=-1 is no number"),
        ({"NNODES": "0"}, "NNODES=0 is no number of machines"),
        ({"NNODES": "two"}, "NNODES=two is no number of machines"),
        ({"NNODES": "2"}, "set MASTER_ADDR to the first machine's address"),
        ({"NNODES": "2", "MASTER_ADDR": "a"}, "set NODE_RANK to 0 on the first machine, 1 on the next, ..."),
    ],
)
def test_what_cannot_be_started(launch: Launch, environment: dict[str, str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        launch(**environment)
    assert str(caught.value) == message


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What `main` starts: ("here", argv) or ("exec", command); nothing is trained."""
    started: list[Any] = []

    def execv(path: str, command: list[str]) -> NoReturn:
        started.append(("exec", command))
        raise SystemExit(0)

    def here(argv: list[str]) -> int:
        started.append(("here", list(argv)))
        return 0

    monkeypatch.setattr(os, "execv", execv)
    monkeypatch.setattr(train, "train_in_this_process", here)
    return started


def test_the_command_that_runs_is_shown(
    launch: Launch, started: list[Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    launch()  # writes the config
    assert train.main(["c.yaml"]) == 0
    assert capsys.readouterr().out == f"+ {sys.executable} -m llava.train c.yaml\n"
    monkeypatch.setenv("NUM_GPUS", "2")
    with pytest.raises(SystemExit):
        train.main(["c.yaml"])
    assert capsys.readouterr().out == f"+ {' '.join(launched(2))}\n"
    assert started == [("here", ["c.yaml"]), ("exec", launched(2))]


def test_a_process_of_torchrun_starts_no_other(started: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("NUM_GPUS", "2")
    train.main(["c.yaml"])
    assert started == [("here", ["c.yaml"])]


@pytest.mark.parametrize("argument", ["epoch=3", "epochs", "--gpus"])
def test_a_mistake_starts_nothing(
    launch: Launch, started: list[Any], monkeypatch: pytest.MonkeyPatch, argument: str
) -> None:
    launch()
    monkeypatch.setenv("NUM_GPUS", "2")
    with pytest.raises((InputError, SystemExit)):
        train.main(["c.yaml", argument])
    assert not started


def test_the_script_is_the_same_command_from_any_folder(repo: Path, tmp_path: Path) -> None:
    script = repo / "scripts" / "finetune_lora.sh"
    subprocess.run(["bash", "-n", script], check=True)
    told = subprocess.run([script, "--help"], capture_output=True, text=True, timeout=60, check=True).stdout
    for line in (
        "LoRA fine-tuning as a YAML file says",
        "--resume auto",
        "fsdp=true",
        "NNODES=2 NODE_RANK=0",
    ):
        assert line in told
    assert "set -euo" not in told
    (tmp_path / "c.yaml").write_text(REQUIRED)
    done = subprocess.run([script, "c.yaml"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stdout.endswith("-m llava.train c.yaml\n") and done.stderr == "error: d.json: no such file\n"

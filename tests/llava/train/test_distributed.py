"""Two processes train as one does: plain, under DeepSpeed's ZeRO and under FSDP, on CPUs with gloo."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llava.model.builder import load_model
from llava.train.__main__ import main
from tests.support.commands import run_here
from tests.support.train_data import ask, many, write_config, write_data
from tests.support.warm import run_as_torchrun, warm_program

pytestmark = pytest.mark.slow

PARTS = ("adapter_model.safetensors", "projector.safetensors")
TOLERANCE = 5e-4
"""Largest difference of a weight after two steps in float32: a twentieth of a step (1e-2). Nearly all agree
to 1e-6, but Adam's first step is g / |g|, and where g is nearly nothing rounding decides. Gradients wrongly
scaled would show in the gradient norms, which agree to 1e-4."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5 pictures and 2 texts, of unlike lengths: the second step has fewer items than the first."""
    folder = tmp_path_factory.mktemp("data")
    long = ask("long", "p0.png", "And what else, " + "please " * 30, "Nothing.")
    texts = [ask("t0", None, "Hello?", "Hi."), ask("t1", None, "Who is there?", "Nobody.")]
    write_data(folder, [*many(5, 2), long, *texts])
    return folder


def config(base: Path, data: Path, run: Path, **changes: object) -> str:
    """Two steps of 4 items, a checkpoint and a validation at each; the second has 3 items."""
    values: dict[str, object] = {
        "epochs": 1,
        "batch_size": 2,
        "learning_rate": 1e-2,
        "lr_scheduler": "constant",
        "max_grad_norm": 0.5,
        "eval_steps": 1,
        "eval_generate_samples": 0,
    }
    return write_config(base, data, run, **(values | changes))


def two(*arguments: str) -> None:
    """Train in two processes with the variables that torchrun sets."""
    processes = run_as_torchrun(2, "-m", "llava.train", *arguments)
    said = "".join(done.stderr[-3000:] for done in processes)
    assert [done.returncode for done in processes] == [0, 0], said


def launch_two(program: Path, *arguments: str) -> None:
    """Train in two processes that the launcher starts, as for users; they are warm, at `program`."""
    command = [sys.executable, "-m", "llava.common.launch", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with warm_program(program, "-m", "llava.train"):
        done = subprocess.run(
            [*command, "--no-python", str(program), *arguments],
            env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def single(tiny_model_dir: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process that reads 4 items at once."""
    run = tmp_path_factory.mktemp("single") / "run"
    done = run_here(main, config(tiny_model_dir, data, run, batch_size=4))
    assert done.returncode == 0, done.stderr
    return run


def require_equal(first: Path, second: Path) -> None:
    for part in PARTS:
        one, other = load_file(first / part), load_file(second / part)
        assert one.keys() == other.keys()
        for name, tensor in one.items():
            torch.testing.assert_close(other[name], tensor, atol=TOLERANCE, rtol=0, msg=name)


def history(run: Path) -> list[float]:
    entries = json.loads((run / "trainer_state.json").read_text())["log_history"]
    return [entry[key] for entry in entries for key in ("loss", "grad_norm", "eval_loss") if key in entry]


def require_same_run(run: Path, single: Path) -> None:
    """The same losses, gradient norms and adapters, and every checkpoint a model by itself."""
    assert history(run) == pytest.approx(history(single), rel=1e-4) and len(history(run)) == 6
    for name in ("checkpoint-1", "checkpoint-2", "."):
        require_equal(run / name, single / name)
    loaded = load_model(run / "checkpoint-1", device="cpu")
    state = loaded.model.state_dict()
    expected = load_model(single / "checkpoint-1", device="cpu").model.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.allclose(state[name], expected[name], atol=TOLERANCE) for name in expected)


def test_two_processes_train_as_one(tiny_model_dir: Path, data: Path, tmp_path: Path, single: Path) -> None:
    launch_two(tmp_path / "train", config(tiny_model_dir, data, tmp_path / "run"))
    require_same_run(tmp_path / "run", single)


def test_two_processes_that_accumulate_train_as_one(
    tiny_model_dir: Path, data: Path, tmp_path: Path, single: Path
) -> None:
    """One item a process at a time: the last batch of the epoch has one for both."""
    two(config(tiny_model_dir, data, tmp_path / "run", batch_size=1, gradient_accumulation_steps=2))
    require_same_run(tmp_path / "run", single)


@pytest.mark.parametrize("kind", ["zero2", "zero3", "fsdp"])
def test_spread_over_two_processes_it_trains_as_one(
    repo: Path, tiny_model_dir: Path, data: Path, tmp_path: Path, single: Path, kind: str
) -> None:
    """And goes on from its first checkpoint to the same result."""
    if kind == "fsdp":
        changes: dict[str, object] = {"fsdp": True}
    else:
        pytest.importorskip("deepspeed", reason="scripts/setup.sh deepspeed")
        changes = {"deepspeed": str(repo / "configs" / "deepspeed" / f"{kind}.json")}
    run = tmp_path / "run"
    path = config(tiny_model_dir, data, run, batch_size=1, gradient_accumulation_steps=2, **changes)
    two(path)
    require_same_run(run, single)
    shutil.rmtree(run / "checkpoint-2")
    two(path, "--resume", "auto")
    require_equal(run / "checkpoint-2", single / "checkpoint-2")


def test_in_bfloat16_zero3_trains_and_goes_on_as_in_float32_but_for_rounding(
    repo: Path, tiny_model_dir: Path, data: Path, tmp_path: Path, single: Path
) -> None:
    """What is published for ZeRO-3 runs in bfloat16: frozen weights, adapters and checkpoints are that."""
    pytest.importorskip("deepspeed", reason="scripts/setup.sh deepspeed")
    run = tmp_path / "run"
    zero3 = str(repo / "configs" / "deepspeed" / "zero3.json")
    path = config(tiny_model_dir, data, run, deepspeed=zero3, dtype="bfloat16")
    two(path)
    assert history(run) == pytest.approx(history(single), rel=0.03) and len(history(run)) == 6
    first = load_file(run / "checkpoint-1" / PARTS[0])
    assert {tensor.dtype for tensor in first.values()} == {torch.bfloat16}
    before = history(run)
    shutil.rmtree(run / "checkpoint-2")
    two(path, "--resume", "auto")
    assert history(run) == pytest.approx(before, rel=1e-3)


def test_bad_input_is_told_once_and_ends_all_processes(
    repo: Path, tiny_model_dir: Path, data: Path, tmp_path: Path
) -> None:
    path = config(tiny_model_dir, data, tmp_path / "run", data_path="nowhere.json")
    done = subprocess.run(
        ["scripts/finetune_lora.sh", path], cwd=repo, env=os.environ | {"NUM_GPUS": "2"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr == "error: nowhere.json: no such file\n"
    assert "llava.common.launch --nnodes 1 --nproc-per-node 2" in done.stdout
    assert not (tmp_path / "run").exists()

"""Runs that end early: killed, told to stop, out of memory, a picture gone. The command in a process of its
own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from llava.common.errors import InputError
from llava.common.settings import validate_settings
from llava.train.__main__ import main
from llava.train.config import TrainSettings
from llava.train.interruption import explain_out_of_memory
from llava.train.trainer import LoraTrainer
from tests.support.commands import run_here
from tests.support.train_data import many, write_data
from tests.support.warm import run_warm

PARTS = ("adapter_model.safetensors", "projector.safetensors")


def config(base: Path, folder: Path, run: Path) -> Path:
    """4 steps in 2 epochs, with dropout and augmentation, validated after each epoch."""
    values = {
        "model_name_or_path": str(base),
        "data_path": str(folder / "train.json"),
        "val_path": str(folder / "train.json"),
        "image_folder": str(folder),
        "output_dir": str(run),
        "lora": {"rank": 2, "dropout": 0.1, "language_targets": ["q_proj"]},
        "epochs": 2,
        "batch_size": 1,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-2,
        "augment": {"flip_horizontal": 0.5, "brightness": 0.2},
        "max_length": 512,
        "dtype": "float32",
        "logging_steps": 1,
        "eval_generate_samples": 2,
        "eval_max_new_tokens": 2,
        "eval_steps": 2,
        "save_steps": 1,
        "keep_checkpoints": 10,
    }
    path = run.parent / f"{run.name}.yaml"
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_data(folder, many(4, 2))
    return folder


def command(*arguments: str, harm: str = "") -> subprocess.CompletedProcess[str]:
    """`python -m llava.train`, with `harm` done to its trainer first."""
    script = (
        "import os, signal\nfrom llava.common.errors import run_command\n"
        "from llava.train.__main__ import main\n"
        f"from llava.train.trainer import LoraTrainer\n{harm}\nrun_command(main)"
    )
    return run_warm("-c", script, *arguments)


def at(method: str, step: int, then: str) -> str:
    """Code that does `then` when the trainer's `method` is called at `step`, before its own work."""
    return (
        f"real = LoraTrainer.{method}\n"
        "def harmed(self, *args, **kwargs):\n"
        f"    if self.state.global_step == {step}:\n        {then}\n"
        "    return real(self, *args, **kwargs)\n"
        f"LoraTrainer.{method} = harmed"
    )


def same(first: Path, second: Path) -> bool:
    one, other = ([load_file(folder / part) for part in PARTS] for folder in (first, second))
    return all(
        mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
        for mine, theirs in zip(one, other, strict=True)
    )


@pytest.fixture(scope="module")
def finished(tiny_model_dir: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    done = run_here(main, config(tiny_model_dir, data, run))
    assert done.returncode == 0, done.stderr
    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "step", "then", "code", "left"),
    [
        ("compute_loss", 3, "os.kill(os.getpid(), signal.SIGKILL)", -9, 3),
        ("_save_rng_state", 2, "os.kill(os.getpid(), signal.SIGKILL)", -9, 1),
        ("compute_loss", 1, "os.kill(os.getpid(), signal.SIGTERM)", 143, 2),
        ("compute_loss", 2, "os.kill(os.getpid(), signal.SIGINT)", 130, 3),
    ],
    ids=["killed in a step", "killed while saving", "SIGTERM", "SIGINT"],
)
def test_an_ended_run_goes_on_to_the_same_bits(
    finished: Path, tiny_model_dir: Path, data: Path, tmp_path: Path,
    method: str, step: int, then: str, code: int, left: int,
) -> None:  # fmt: skip
    """The signals come twice in a step of two batches; once is enough, so the second is not sent."""
    once = f"({then}, setattr(LoraTrainer, {method!r}, real))"
    run = tmp_path / "run"
    path = str(config(tiny_model_dir, data, run))
    ended = command(path, harm=at(method, step, once))
    assert ended.returncode == code, ended.stderr
    assert max(int(folder.name[11:]) for folder in run.glob("checkpoint-*")) == left
    assert not (run / "run.json").exists()
    if code > 0:
        *_, last = ended.stderr.splitlines()
        assert f"stopped after step {left}, which is saved; go on with --resume auto" in last
    again = run_here(main, path, "--resume", "auto")
    assert again.returncode == 0, again.stderr
    assert same(run / "checkpoint-4", finished / "checkpoint-4") and same(run, finished)
    answers = "validation_answers.jsonl"
    assert (run / answers).read_text() == (finished / answers).read_text()


def test_an_image_that_is_gone_is_named_with_its_record(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the training process or a worker of its data loader finds out."""
    folder = tmp_path / "data"
    folder.mkdir()
    write_data(folder, many(3, 1))
    real = LoraTrainer.train

    def without_an_image(self: LoraTrainer, *args: Any, **kwargs: Any) -> Any:
        (self.train_dataset.records.images.folder / "p1.png").rename(folder / "moved")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(LoraTrainer, "train", without_an_image)
    for workers in (0, 1):
        run = config(tiny_model_dir, folder, tmp_path / f"run{workers}")
        done = run_here(main, run, "picture_cache_gb=0", f"dataloader_workers={workers}")
        assert done.returncode == 2, done.stderr
        *_, last = done.stderr.splitlines()
        assert last.startswith("error: record 'r1-0': ") and "p1.png" in last
        assert "Traceback" not in done.stderr
        (folder / "moved").rename(folder / "p1.png")


def test_out_of_memory_says_what_to_change_in_order(tmp_path: Path) -> None:
    values = {"model_name_or_path": "m", "data_path": "d", "image_folder": "i", "output_dir": "o"}
    settings = validate_settings(TrainSettings, values | {"batch_size": 8}, "test")
    with pytest.raises(InputError) as caught, explain_out_of_memory(settings):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")
    text = str(caught.value)
    wanted = ["CUDA out of memory", "batch_size=4 gradient_accumulation_steps=8"]
    wanted += ["gradient_checkpointing=true", "bits=4", "configs/deepspeed"]
    places = [text.index(part) for part in wanted]
    assert places == sorted(places) and "\n" not in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attn_implementation": "flash_attention_2"}, "set packing=false"),
        ({"early_stopping_patience": 2}, "give val_path"),
        ({"report_to": ["all"]}, "name the trackers"),
    ],
)
def test_settings_that_cannot_work_together(changes: dict[str, object], message: str) -> None:
    values = {"model_name_or_path": "m", "data_path": "d", "image_folder": "i", "output_dir": "o"}
    with pytest.raises(InputError, match=message):
        validate_settings(TrainSettings, values | changes, "test")

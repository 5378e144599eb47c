"""What a run reports and when it stops by itself: trackers, early stopping, what a machine cannot do."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from llava.common.environment import how_to_install
from llava.common.errors import InputError, run_command
from llava.train.__main__ import main
from llava.train.plan import Target
from llava.train.trainer import LoraTrainer
from tests.support.train_data import many, write_config, write_data
from tests.support.warm import run_warm


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_data(folder, many(4, 2))
    return folder


def config(base: Path, data: Path, run: Path, **changes: Any) -> str:
    """Four steps, each validated and saved."""
    values: dict[str, Any] = {
        "batch_size": 1,
        "lr_scheduler": "constant",
        "learning_rate": 1e-3,
        "mm_projector_lr": 1e-4,
        "vision_lr": 1e-5,
        "gradient_checkpointing": "auto",
        "eval_steps": 1,
        "eval_generate_samples": 2,
        "eval_max_new_tokens": 2,
    }
    return write_config(base, data, run, **(values | changes))


def answers(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "validation_answers.jsonl").read_text().splitlines()]


def train(*arguments: str, **environment: str) -> None:
    """In a process of its own: trackers leave threads and settings behind."""
    done = run_warm("-m", "llava.train", *arguments, env=os.environ | environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_wandb_offline_keeps_figures_and_answers_and_sends_nothing(
    tiny_model_dir: Path, data: Path, tmp_path: Path
) -> None:
    pytest.importorskip("wandb", reason="scripts/setup.sh wandb")
    run = tmp_path / "run"
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        path = config(tiny_model_dir, data, run, report_to=["wandb"], max_steps=1)
        train(path, WANDB_MODE="offline", WANDB_DIR=str(tmp_path), WANDB_BASE_URL=address)
        with pytest.raises(BlockingIOError):  # nobody called
            server.accept()
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    (log,) = folder.glob("run-*.wandb")
    written = log.read_bytes()
    for name in (b"train/learning_rate_vision", b"train/tokens_per_second", b"eval/accuracy"):
        assert name in written
    (table,) = folder.rglob("*.table.json")
    shown = json.loads(table.read_text())
    assert shown["columns"] == ["id", "question", "expected", "answer"]
    assert shown["data"] == [[entry[name] for name in shown["columns"]] for entry in answers(run)]


@pytest.mark.slow
def test_tensorboard_holds_rates_figures_and_answers(
    tiny_model_dir: Path, data: Path, tmp_path: Path
) -> None:
    reason = "scripts/setup.sh tensorboard"
    pytest.importorskip("tensorboard", reason=reason)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    train(config(tiny_model_dir, data, run, report_to=["tensorboard"], max_steps=2))
    (file,) = (run / "tensorboard").rglob("events.out.tfevents.*")
    events = EventAccumulator(str(file)).Reload()
    for part, rate in {"language": 1e-3, "projector": 1e-4, "vision": 1e-5}.items():
        found = events.Scalars(f"train/learning_rate_{part}")
        assert [event.value for event in found] == pytest.approx([rate, rate]) and found[1].step == 2
    for name in ("train/tokens_per_second", "train/supervised_tokens_per_second", "train/pictures_per_second",
                 "train/step_seconds", "train/peak_memory_gb", "train/loss", "eval/loss"):  # fmt: skip
        assert all(event.value > 0 for event in events.Scalars(name))
    texts = events.Tensors("validation_answers/text_summary")
    assert [event.step for event in texts] == [1, 2]
    shown = texts[1].tensor_proto.string_val[0].decode()
    asked = [entry["question"].replace("\n", " ") for entry in answers(run) if entry["step"] == 2]
    assert asked and all(question in shown for question in asked)


@pytest.mark.slow
def test_early_stopping_ends_the_run_and_a_resumed_one_stays_ended(
    tiny_model_dir: Path, data: Path, tmp_path: Path
) -> None:
    """At such a rate no validation is better than the first."""
    run = tmp_path / "run"
    rates = {"learning_rate": 1e-30, "mm_projector_lr": 1e-30, "vision_lr": 1e-30}
    path = config(tiny_model_dir, data, run, early_stopping_patience=2, **rates)
    assert main([path]) == 0
    state = json.loads((run / "trainer_state.json").read_text())
    assert state["global_step"] == 3 and state["best_global_step"] == 1
    before = (run / "adapter_model.safetensors").read_bytes(), answers(run)
    assert main([path, "--resume", "auto"]) == 0
    assert not (run / "checkpoint-4").exists()
    assert ((run / "adapter_model.safetensors").read_bytes(), answers(run)) == before


@pytest.mark.parametrize(("memory", "expected"), [(10**12, False), (10**8, True)])
def test_gradient_checkpointing_is_chosen_where_memory_needs_it(
    tiny_model_dir: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    memory: int, expected: bool,
) -> None:  # fmt: skip
    def look(self: Any, **kwargs: Any) -> None:
        assert self.settings.gradient_checkpointing is expected
        raise InputError(f"checkpointing={self.args.activation_checkpointing}")

    monkeypatch.setattr(Target, "this_machine", lambda arguments: Target("cpu", memory))
    monkeypatch.setattr(LoraTrainer, "train", look)
    with pytest.raises(InputError, match=f"checkpointing={expected}"):
        main([config(tiny_model_dir, data, tmp_path / "run")])


@pytest.mark.parametrize(
    ("override", "missing", "message"),
    [
        ("dtype=float16", "", "needs a CUDA device: use float32 or bfloat16"),
        ("attn_implementation=flex_attention", "", "needs a CUDA device: use sdpa"),
        ("liger=true", "", "liger=true needs a CUDA device"),
        ("bits=4", "bitsandbytes", f"bits=4 needs bitsandbytes: {how_to_install('quant')}"),
        ("report_to=[wandb]", "wandb", how_to_install("wandb")),
        ("report_to=[tensorboard]", "tensorboard", how_to_install("tensorboard")),
        ("report_to=[nosuch]", "", "report_to: "),
    ],
)
def test_what_the_machine_cannot_do_is_one_line_and_nothing_is_written(
    tiny_model_dir: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], override: str, missing: str, message: str,
) -> None:  # fmt: skip
    if "CUDA" in message and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == missing else find(name, *rest)
    )
    path = config(tiny_model_dir, data, tmp_path / "run")
    with pytest.raises(SystemExit) as stopped:
        run_command(lambda: main([path, override]))
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and said.startswith("error: ") and message in said
    assert said.count("\n") == 1 and not (tmp_path / "run").exists()


def test_four_bits_and_zero3_are_refused(
    repo: Path, tiny_model_dir: Path, data: Path, tmp_path: Path
) -> None:
    zero3 = repo / "configs" / "deepspeed" / "zero3.json"
    path = config(tiny_model_dir, data, tmp_path / "run", deepspeed=str(zero3), bits=4)
    with pytest.raises(InputError, match="ZeRO-3 cannot spread quantised weights"):
        main([path, "--dry-run", "--gpus", "2x24"])

"""The command itself on the embedded base: what it writes, what it trains, that it resumes exactly."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import llava.train.trainer as trainer_module
from llava.common.errors import InputError
from llava.model.builder import load_model
from llava.model.run_dir import read_run_info
from llava.train.__main__ import main
from llava_inspect.train import main as script_main
from tests.support.commands import run_here
from tests.support.train_data import ask, many, write_config, write_data

PARTS = ("adapter_model.safetensors", "projector.safetensors")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6 pictures of 3 questions and a text-only record, and the same again to validate on."""
    folder = tmp_path_factory.mktemp("data")
    write_data(folder, [*many(6, 3), ask("text", None, "Hello?", "Hi.")])
    return folder


def config(base: Path, data: Path, run: Path) -> str:
    """A config file with two steps an epoch and all that is random switched on."""
    return write_config(
        base, data, run,
        lora={"rank": 4, "dropout": 0.1, "language_targets": ["q_proj"], "vision_targets": ["fc1"]},
        epochs=3, batch_size=2, gradient_accumulation_steps=2, questions_per_picture=2, learning_rate=1e-2,
        augment={"flip_horizontal": 0.5, "brightness": 0.2},
        eval_generate_samples=4, eval_max_new_tokens=3, eval_steps=2,
        keep_checkpoints=10,
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(tiny_model_dir: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 6 steps with all its checkpoints."""
    run = tmp_path_factory.mktemp("runs") / "run"
    assert main([config(tiny_model_dir, data, run)]) == 0
    return run


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {f"{part}:{name}": value for part in PARTS for name, value in load_file(folder / part).items()}


def same(first: Path, second: Path) -> bool:
    one, other = tensors(first), tensors(second)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_every_checkpoint_is_a_run_that_loads_alone(finished: Path, tmp_path: Path) -> None:
    folders = [finished / f"checkpoint-{step}" for step in range(1, 7)]
    for folder in [finished, *folders]:
        names = {path.name for path in folder.iterdir()}
        assert {"run.json", "config.yaml", "adapter_config.json", "tokenizer.json", *PARTS} <= names
    moved = tmp_path / "alone"
    shutil.copytree(folders[2], moved)
    loaded = load_model(moved, device="cpu")
    assert loaded.template.name == "vicuna_v1"
    info = read_run_info(moved)
    assert info.step == 3 and info.projector_trained and info.lora.rank == 4
    assert info.config["learning_rate"] == 1e-2 and len(info.data) == 1
    assert not list(finished.glob(".*"))


def test_the_best_validated_state_is_kept(finished: Path) -> None:
    history = json.loads((finished / "trainer_state.json").read_text())["log_history"]
    losses = {entry["step"]: entry["eval_loss"] for entry in history if "eval_loss" in entry}
    assert losses.keys() == {2, 4, 6}
    best = min(losses, key=lambda step: losses[step])
    assert read_run_info(finished).step == best
    assert same(finished, finished / f"checkpoint-{best}")


def test_a_run_that_was_too_short_says_so_in_run_json(finished: Path) -> None:
    """Its loss fell to the last of its six steps."""
    (note,) = read_run_info(finished).notes
    assert "train longer by epochs=6 (--resume auto" in note
    assert not read_run_info(finished / "checkpoint-2").notes


def test_only_what_the_config_names_is_trained(finished: Path, tiny_model_dir: Path) -> None:
    names = set(load_file(finished / "adapter_model.safetensors"))
    assert all("q_proj" in name or "mlp.fc1" in name for name in names)
    assert {("language_model" in name, "q_proj" in name) for name in names} == {(True, True), (False, False)}
    base = load_model(tiny_model_dir, device="cpu").model.state_dict()
    tuned = {name.replace(".base_layer", ""): value
             for name, value in load_model(finished, device="cpu").model.state_dict().items()}  # fmt: skip
    changed = {name for name, value in base.items() if not torch.equal(value, tuned[name])}
    assert changed and all("multi_modal_projector" in name for name in changed)


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 3])
def test_resuming_gives_the_bits_of_the_uninterrupted_run(
    finished: Path, tiny_model_dir: Path, data: Path, tmp_path: Path, step: int
) -> None:
    """Within an epoch (step 3) and between two (step 2); by name and by `auto`."""
    run = tmp_path / "run"
    shutil.copytree(finished / f"checkpoint-{step}", run / f"checkpoint-{step}")
    resume = "auto" if step == 2 else str(finished / "checkpoint-3")
    assert main([config(tiny_model_dir, data, run), "--resume", resume]) == 0
    assert same(run / "checkpoint-6", finished / "checkpoint-6")


@pytest.mark.slow
def test_a_finished_run_may_be_made_longer(
    finished: Path, tiny_model_dir: Path, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished / "checkpoint-6", run / "checkpoint-6")
    assert main([config(tiny_model_dir, data, run), "--resume", "auto", "epochs=4"]) == 0
    assert json.loads((run / "trainer_state.json").read_text())["global_step"] == 8


@pytest.mark.slow
def test_steps_are_the_same_however_they_are_cut(tiny_model_dir: Path, data: Path, tmp_path: Path) -> None:
    """Four pictures at once, or one after the other; packed or not: a step is the mean over its supervised
    tokens, so losses and gradients are alike as long as rounding lets them."""
    results = []
    for name, batch, steps, packed in [
        ("at_once", 4, 1, "true"),
        ("apart", 1, 4, "true"),
        ("unpacked", 1, 4, "false"),
    ]:
        run = tmp_path / name
        path = config(tiny_model_dir, data, run)
        main([str(path), f"batch_size={batch}", f"gradient_accumulation_steps={steps}", "save_steps=100",
              f"packing={packed}", "lora.dropout=0", "val_path=null"])  # fmt: skip
        history = json.loads((run / "trainer_state.json").read_text())["log_history"]
        results.append([entry[key] for entry in history if "loss" in entry for key in ("loss", "grad_norm")])
    at_once, apart, unpacked = results
    assert len(at_once) == 12
    assert apart == pytest.approx(at_once, rel=1e-4) and unpacked == pytest.approx(at_once, rel=1e-4)


def test_the_parts_have_their_own_learning_rates(
    tiny_model_dir: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[float, int] = {}
    real = trainer_module.LoraTrainer.create_optimizer

    def spy(self: Any, model: Any = None) -> Any:
        optimizer = real(self, model)
        for group in optimizer.param_groups:
            seen[group["lr"]] = seen.get(group["lr"], 0) + sum(p.numel() for p in group["params"])
        return optimizer

    monkeypatch.setattr(trainer_module.LoraTrainer, "create_optimizer", spy)
    main([config(tiny_model_dir, data, tmp_path / "run"), "max_steps=1", "val_path=null",
          "mm_projector_lr=1e-3", "vision_lr=1e-4"])  # fmt: skip
    found = tensors(tmp_path / "run")
    sizes = {1e-2: "language_model", 1e-3: "multi_modal_projector", 1e-4: "vision_tower"}
    assert seen == {
        rate: sum(value.numel() for name, value in found.items() if part in name)
        for rate, part in sizes.items()
    }


def test_a_loss_that_is_no_number_stops_and_names_the_records(
    tiny_model_dir: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(model: Any, batch: Any) -> Any:
        return torch.tensor(float("nan"), requires_grad=True), 1

    monkeypatch.setattr(trainer_module, "packed_loss", broken)
    with pytest.raises(InputError, match=r"loss became nan in step 1, reading the records .*r\d-\d"):
        main([config(tiny_model_dir, data, tmp_path / "run")])


def test_what_is_refused_before_anything_is_written(
    finished: Path, tiny_model_dir: Path, data: Path, tmp_path: Path
) -> None:
    path = config(tiny_model_dir, data, tmp_path / "run")
    before = sorted(finished.rglob("*"))
    for arguments, message in [
        ([f"output_dir={finished}"], "holds a run already; continue it with --resume auto"),
        ([f"model_name_or_path={finished}"], "is a run directory"),
        (["model_name_or_path=nowhere"], "no such model folder"),
        ([f"model_name_or_path={data}"], "not a LLaVA model"),
        (["data_path=nowhere.json"], "nowhere.json: no such file"),
        (["conv_mode=v9"], "unknown conv mode"),
        (["lora.language_targets=[qproj]"], "no 'qproj' in the model; it has"),
        (["--resume", str(data)], "no checkpoint to go on from"),
        (["--resume", str(finished / "checkpoint-2"), "lora.rank=8"], "lora differ"),
        (
            ["--resume", str(finished / "checkpoint-2"), "batch_size=1", "gradient_accumulation_steps=4"],
            "batch_size, gradient_accumulation_steps differ",
        ),
        (["--resume", str(finished / "checkpoint-2"), "questions_per_picture=1"], "questions_per_picture d"),
        (["--resume", str(finished / "checkpoint-2"), "learning_rate=1e-3"], "learning_rate differ"),
        (
            ["--resume", str(finished / "checkpoint-2"), "warmup_ratio=0.5", "augment.flip_vertical=0.1"],
            "augment, warmup_ratio differ",
        ),
    ]:
        with pytest.raises(InputError, match=message):
            main([path, *arguments])
    assert sorted(finished.rglob("*")) == before and not (tmp_path / "run").exists()


def test_overwriting_removes_the_old_run_and_nothing_else(
    tiny_model_dir: Path, data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    (run / "checkpoint-99").mkdir(parents=True)
    (run / "notes.txt").write_text("mine")
    (run / "tensorboard").mkdir()
    main([config(tiny_model_dir, data, run), "overwrite_output_dir=true", "max_steps=1"])
    assert not (run / "checkpoint-99").exists() and not (run / "tensorboard").exists()
    assert (run / "notes.txt").exists()


def test_the_script_shows_the_plan_and_trains_nothing_on_a_dry_run(
    tiny_model_dir: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the command that scripts/finetune_lora.sh is."""
    monkeypatch.setenv("NUM_GPUS", "1")
    done = run_here(script_main, config(tiny_model_dir, data, tmp_path / "run"), "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "python -m llava.train" in done.stdout and "language_model LoRA" in done.stdout
    assert "without packing" in done.stdout
    assert not (tmp_path / "run").exists()

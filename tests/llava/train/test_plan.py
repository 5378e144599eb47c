"""The dry run: it reads no weights, says what a run will do and take, and refuses what cannot work."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from llava.common.errors import InputError
from llava.common.settings import load_settings
from llava.model.known_shapes import known_shape, weights_size
from llava.train.__main__ import main
from llava.train.config import TrainSettings
from llava.train.plan import Target, meta_model
from tests.support.train_data import ask, many, write_data
from tests.support.warm import run_as_torchrun

GPUS = {"llava15_7b_lora": "1x24", "llava15_7b_qlora_12gb": "1x12", "llava15_13b_qlora": "1x16",
        "llava16_mistral_7b_lora": "1x40", "llava16_34b_zero3": "4x40",
        "onevision_7b_lora": "1x40"}  # fmt: skip
"""What the header of each config says that it needs."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_data(folder, many(4, 6))
    return folder


@pytest.fixture
def small_files(tiny_model_dir: Path, tmp_path: Path) -> Path:
    """The embedded base without its weights."""
    return Path(
        shutil.copytree(tiny_model_dir, tmp_path / "base", ignore=shutil.ignore_patterns("*.safetensors"))
    )


@pytest.fixture
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub cannot be reached, and nothing of it is in the cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def write_config(base: Path | str, data: Path, path: Path, **values: object) -> str:
    values = {
        "model_name_or_path": str(base),
        "data_path": str(data / "train.json"),
        "image_folder": str(data),
        "output_dir": str(path.parent / "run"),
    } | values
    path.write_text(json.dumps(values), encoding="utf-8")
    return str(path)


def test_it_needs_no_weights_and_writes_nothing(
    small_files: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(small_files, data, tmp_path / "c.json")
    before = sorted(tmp_path.rglob("*"))
    assert main([config, "--dry-run"]) == 0
    assert sorted(tmp_path.rglob("*")) == before
    said = capsys.readouterr().out
    found = re.search(
        r"([\d,]+) packed, ([\d,]+) without packing\s+\(([\d.]+)", " ".join(said.replace("│", "").split())
    )
    assert found
    packed, unpacked, times = found.groups()
    ratio = int(unpacked.replace(",", "")) / int(packed.replace(",", ""))
    assert ratio == pytest.approx(float(times), abs=0.05) and ratio > 3
    for part in ("frozen weights", "optimizer states", "activations, language model", "logits", "pictures"):
        assert part in said


def test_three_records_show_exactly_what_is_learned(
    small_files: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([write_config(small_files, data, tmp_path / "c.json"), "--dry-run"])
    said = capsys.readouterr().out
    assert said.count("tokens learned") == 3
    assert said.count("<image> x 144") == 3  # a picture of the embedded base, not 144 words
    learned = re.findall(r"\[\[(.*?)\]\]", said, re.DOTALL)
    assert [answer.strip() for answer in learned] == ["No.</s>", "No.</s>", "Yes.</s>"]


def test_colour_marks_what_is_learned_on_a_terminal(
    small_files: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("FORCE_COLOR", "1")
    main([write_config(small_files, data, tmp_path / "c.json"), "--dry-run"])
    assert re.search(r"\x1b\[1;30;42m Yes\.</s>", capsys.readouterr().out)


def test_a_plan_for_other_gpus_warns_and_says_what_each_change_would_give(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], no_hub: None
) -> None:
    config = write_config(
        "llava-hf/llava-1.5-7b-hf", data, tmp_path / "c.json", dtype="bfloat16", gradient_checkpointing=False
    )
    assert main([config, "--dry-run", "--gpus", "1x16"]) == 0
    said = capsys.readouterr().out
    assert "This may not fit" in said
    sizes = {
        change: float(size)
        for change, size in re.findall(r"with (\w+=\w+)(?: \w+=\d+)?: ([\d.]+)\s+GB", said)
    }
    assert set(sizes) == {"gradient_checkpointing=true", "batch_size=1", "bits=4"}
    estimated = re.search(r"([\d.]+) GB are estimated", said)
    assert estimated
    total = float(estimated[1])
    assert all(size < total for size in sizes.values())
    assert main([config, "--dry-run", "--gpus", "1x80"]) == 0
    said = capsys.readouterr().out
    assert "This may not fit" not in said and "beside that of the GPUs" in " ".join(
        said.replace("│", "").split()
    )


def test_steps_are_those_of_the_planned_devices(
    small_files: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """4 pictures, 1 a device and batch: 4 steps an epoch on one device, 2 on two."""
    config = write_config(
        small_files, data, tmp_path / "c.json", batch_size=1, gradient_accumulation_steps=1, epochs=3
    )
    for gpus, steps in [("1x24", "12: 3 epochs of 4"), ("2x24", "6: 3 epochs of 2")]:
        main([config, "--dry-run", "--gpus", gpus])
        assert steps in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dry-run", "lora.language_targets=[qproj]"], "no 'qproj' in the model"),
        (["--dry-run", "max_length=100"], "more than max_length"),
        (["--dry-run", "--gpus", "many"], "--gpus many: write their number and GB"),
        (["--dry-run", "--gpus", "0x24"], "--gpus 0x24: write their number and GB"),
        (["--gpus", "1x24"], "give it with --dry-run"),
        (["--dry-run", "--gpus", "2x24", "deepspeed=nowhere.json"], "nowhere.json"),
        (["--dry-run", "deepspeed=configs/deepspeed/zero3.json"], "scripts/finetune_lora.sh"),
        (["--dry-run", "model_name_or_path=nobody/nothing-here"], "nothing-here --list"),
    ],
)
def test_what_cannot_work_is_one_line(
    small_files: Path, data: Path, tmp_path: Path, repo: Path, arguments: list[str], message: str,
    monkeypatch: pytest.MonkeyPatch, no_hub: None,
) -> None:  # fmt: skip
    monkeypatch.chdir(repo)
    with pytest.raises(InputError, match=message) as caught:
        main([write_config(small_files, data, tmp_path / "c.json"), *arguments])
    assert "\n" not in str(caught.value)


def test_a_run_that_would_be_refused_is_refused_dry(small_files: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    config = write_config(small_files, data, tmp_path / "c.json")
    with pytest.raises(InputError, match="holds a run already"):
        main([config, "--dry-run"])
    assert main([config, "--dry-run", "overwrite_output_dir=true"]) == 0
    assert (tmp_path / "run" / "run.json").read_text() == "{}"


def test_a_record_longer_than_the_context_is_named(small_files: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    write_data(folder, [ask("short", "p.png", "Who?", "Me."), ask("long", "p.png", "word " * 2000, "Yes.")])
    config = write_config(small_files, folder, tmp_path / "c.json", max_length=100000)
    with pytest.raises(InputError, match=r"record 'long': \d+ tokens, the model's context is 2048"):
        main([config, "--dry-run"])


def test_the_skeleton_holds_no_number(small_files: Path, data: Path, tmp_path: Path) -> None:
    from llava.model.folder import open_model_folder

    settings = load_settings(TrainSettings, Path(write_config(small_files, data, tmp_path / "c.json")))
    model = meta_model(open_model_folder(small_files).config, settings)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_targets_are_read_as_people_write_them() -> None:
    assert Target.parse("8x80") == Target("cuda", 80 * 10**9, 8)
    assert Target.parse("24") == Target("cuda", 24 * 10**9, 1)
    assert str(Target.parse("8x80")) == "8 GPUs of 80 GB"


@pytest.mark.parametrize("name", sorted(GPUS))
def test_a_shipped_config_plans_its_model_without_the_hub_and_fits_what_its_header_says(
    name: str, repo: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, no_hub: None,
) -> None:  # fmt: skip
    monkeypatch.chdir(repo)
    config = repo / "configs" / f"{name}.yaml"
    assert known_shape(load_settings(TrainSettings, config).model_name_or_path)
    overrides = [f"data_path={data / 'train.json'}", f"image_folder={data}"]
    overrides += ["val_path=null", f"output_dir={tmp_path / 'run'}"]
    assert main([str(config), "--dry-run", "--gpus", GPUS[name], *overrides]) == 0
    said = capsys.readouterr().out
    assert "planned by its known shape" in said and "activations, language model" in said
    assert re.search(rf"fits: [\d.]+ of {GPUS[name][2:]} GB", said)
    assert re.search(
        r"time some \d+ (second|minute|hour)s?, if a GPU computes \d+ TFLOP/s",
        " ".join(said.replace("│", "").split()),
    )
    assert said.count("tokens learned") == 3


def test_every_shipped_config_is_among_these(repo: Path) -> None:
    assert {path.stem for path in (repo / "configs").glob("*.yaml")} == {*GPUS, "tiny_cpu"}


@pytest.mark.parametrize(
    ("name", "billions"), [("llava-hf/llava-1.5-7b-hf", 7.06), ("llava-hf/llava-v1.6-34b-hf", 34.7)]
)
def test_a_known_shape_has_the_published_number_of_parameters(name: str, billions: float) -> None:
    shape = known_shape(name)
    assert shape is not None
    assert weights_size(shape) / 2e9 == pytest.approx(billions, rel=0.01)


@pytest.mark.slow
def test_under_torchrun_it_plans_for_gpus_that_are_not_here(
    repo: Path, small_files: Path, data: Path, tmp_path: Path
) -> None:
    """Where scripts/finetune_lora.sh runs a config that shards."""
    config = write_config(
        small_files, data, tmp_path / "c.json", deepspeed=str(repo / "configs" / "deepspeed" / "zero3.json")
    )
    [done] = run_as_torchrun(1, "-m", "llava.train", config, "--dry-run", "--gpus", "4x24")
    assert done.returncode == 0, done.stderr
    assert "4 GPUs of 24 GB" in done.stdout

"""Training settings: the shipped file is valid, and what does not fit is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from llava.common.errors import InputError
from llava.common.settings import load_settings
from llava.train.config import TrainSettings


def load(tmp_path: Path, text: str = "", *overrides: str) -> TrainSettings:
    path = tmp_path / "c.yaml"
    path.write_text(
        "model_name_or_path: base\ndata_path: t.json\nimage_folder: i\noutput_dir: o\n" + text,
        encoding="utf-8",
    )
    return load_settings(TrainSettings, path, overrides)


def test_the_tiny_config_is_valid_and_overrides_reach_inside(repo: Path) -> None:
    settings = load_settings(
        TrainSettings, repo / "configs" / "tiny_cpu.yaml", ["lora.rank=4", "epochs=2", "val_path=null"]
    )
    assert settings.lora.rank == 4 and settings.epochs == 2 and settings.val_path is None
    assert settings.lora.vision_targets and not settings.freeze_projector


GPU_CONFIGS = {  # pictures of a step on its GPUs, tokens of a row
    "llava15_7b_lora": (16, 2048),
    "llava15_7b_qlora_12gb": (16, 2048),
    "llava15_13b_qlora": (16, 2048),
    "llava16_34b_zero3": (16, 4096),
    "llava16_mistral_7b_lora": (16, 4096),
    "onevision_7b_lora": (16, 10240),
}


@pytest.mark.parametrize("name", GPU_CONFIGS)
def test_a_gpu_config_holds_only_what_differs(repo: Path, tmp_path: Path, name: str) -> None:
    """Every key of it, and of the file that it extends, changes what the run does."""
    shared = yaml.safe_load((repo / "configs" / "common" / "gpu.yaml").read_text(encoding="utf-8"))
    own = yaml.safe_load((repo / "configs" / f"{name}.yaml").read_text(encoding="utf-8"))
    assert own.pop("extends") == "common/gpu.yaml"
    plain = load(tmp_path, "val_path: v.json\n").model_dump(mode="json")
    for key, value in shared.items():
        given = value if isinstance(value, dict) else {key: value}
        default = plain[key] if isinstance(value, dict) else plain
        assert all(default[k] != v for k, v in given.items()), f"{key} is the default"
    assert not own.keys() & shared.keys()
    assert all(plain[key] != value for key, value in own.items())


@pytest.mark.parametrize("name", GPU_CONFIGS)
def test_the_gpu_configs_resolve_to_what_their_headers_promise(repo: Path, name: str) -> None:
    settings = load_settings(TrainSettings, repo / "configs" / f"{name}.yaml")
    gpus = 4 if settings.deepspeed else 1
    images = settings.batch_size * settings.gradient_accumulation_steps * gpus
    assert (images, settings.max_length) == GPU_CONFIGS[name]
    assert (settings.lora.rank, settings.lora.alpha, settings.epochs) == (32, 64, "auto")
    assert settings.dtype == "bfloat16" and settings.gradient_checkpointing is True
    assert settings.bits == (4 if "qlora" in name else None)
    assert (settings.learning_rate, settings.mm_projector_lr) == (2e-4, 2e-5)


def test_defaults_freeze_the_tower_and_leave_images_alone(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert settings.lora.vision_targets == []
    assert set(settings.augment.model_dump().values()) == {0.0}


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("learning_rat: 1e-4\n", (), "unknown key 'learning_rat'; did you mean 'learning_rate'"),
        ("", ("lora.rnk=4",), "unknown key 'lora.rnk'; did you mean 'rank'"),
        ("", ("augment.flip=0.5",), "unknown key 'augment.flip'"),
        ("epochs: -1\n", (), "epochs: -1 is neither auto nor a number above 0"),
        ("", ("eval_steps=2.5",), "eval_steps: 2.5 is neither auto nor a whole number above 0"),
        ("", ("save_steps=never",), "save_steps: 'never' is neither auto nor a whole number above 0"),
        ("auto_epochs: {least: 20}\n", (), "least is 20, most is 10"),
        ("", ("vision_lr=1e-3",), "lora.vision_targets is empty"),
        ("", ("best_by=accuracy", "eval_generate_samples=0"), "best_by: accuracy needs"),
        ("", ("lora.language_targets=[]",), "lora names no targets"),
        ("", ("batch_size",), "write overrides as key=value"),
    ],
)
def test_a_misfit_is_one_clear_line(
    tmp_path: Path, text: str, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path, text, *overrides)
    assert message in str(caught.value) and "\n" not in str(caught.value)

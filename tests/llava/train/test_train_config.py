"""Training settings: the shipped file is valid, and what does not fit is named."""

from __future__ import annotations

from pathlib import Path

import pytest

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
        ("epochs: -1\n", (), "epochs: "),
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

"""What a model sees of an image, from its config, folder or name."""

from pathlib import Path

import pytest

from data_prep.model_inputs import ModelInput, model_input_of, model_inputs_for
from llava.common.errors import InputError
from llava.common.files import write_json, write_text
from llava.model.known_shapes import SHAPES


@pytest.mark.parametrize("name", SHAPES)
def test_the_hubs_name_and_the_models_own_folder_agree(name: str, tmp_path: Path) -> None:
    by_name = model_input_of(name)
    write_json(tmp_path / "model" / "config.json", SHAPES[name])
    folder = model_input_of(str(tmp_path / "model"))
    assert (folder.side, folder.patch, folder.tile) == (by_name.side, by_name.patch, by_name.tile)
    assert folder.name == "model" and "llava" in by_name.name


def test_the_embedded_base_a_run_of_it_and_an_original_folder(tmp_path: Path) -> None:
    assert model_input_of("tiny_cpu") == ModelInput("tiny-llava", 144, 12)
    write_text(tmp_path / "run" / "config.yaml", "model_name_or_path: playground/tiny-llava\n")
    assert model_input_of(str(tmp_path / "run")) == ModelInput("tiny-llava", 144, 12)
    tower = {"mm_vision_tower": "openai/clip-vit-large-patch14-336", "image_aspect_ratio": "pad"}
    write_json(tmp_path / "original" / "config.json", tower)
    assert model_input_of(str(tmp_path / "original")) == ModelInput("original", 336, 14)


def test_others_are_shown_beside_the_judge_unless_they_see_the_same() -> None:
    names = [model_input.name for model_input in model_inputs_for("llava-hf/llava-1.5-7b-hf")]
    assert names == ["llava-1.5-7b-hf", "LLaVA-1.6"]


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "bert" / "config.json", {"model_type": "bert"})
    for model, said in (
        ("some/model", "no such folder, and no Hub name of LLaVA-1.5"),
        ("tiny", "no config of that name ships"),
        (str(tmp_path / "bert"), "does not say how large"),
        (str(tmp_path), "neither config.json"),
    ):
        with pytest.raises(InputError, match=said):
            model_input_of(model)

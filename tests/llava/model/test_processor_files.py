"""What is written beside the weights: transformers 4 reads it (tests/interop/check_transformers.py has it do
so), and every row of the model has a token."""

import json

import pytest
from tokenizers import AddedToken, Tokenizer, models
from transformers import AutoTokenizer

from llava.export.convert import export
from llava.export.merge import merge_adapters
from llava.model.folder import open_model_folder
from llava.model.processor_files import fill_vocabulary, suit_transformers_4
from tests.support.byte_level import LLAMA_3, byte_level_tokenizer
from tests.support.family_models import save_family
from tests.support.original_folders import save_original
from tests.support.tiny_models import save_base, save_run


def written(folder, name):
    return json.loads((folder / name).read_text())


def assert_suits_transformers_4(folder, image_processor):
    tokenizer = written(folder, "tokenizer_config.json")
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert tokenizer["model_input_names"] == ["input_ids", "attention_mask"]
    images = written(folder, "preprocessor_config.json")
    assert images["image_processor_type"] == image_processor
    assert "image_mean" in images
    if (folder / "processor_config.json").is_file():
        assert "image_processor" not in written(folder, "processor_config.json")


@pytest.mark.parametrize(
    ("family", "image_processor"),
    [
        ("llava-llama", "LlavaImageProcessor"),
        ("llava_next-mistral", "LlavaNextImageProcessor"),
        ("llava_onevision-qwen2", "LlavaOnevisionImageProcessor"),
    ],
)
def test_a_run_and_its_merge_suit_transformers_4(tmp_path, tiny_model_dir, family, image_processor):
    base = save_family(tiny_model_dir, tmp_path / "base", family)
    merge_adapters(save_run(tmp_path / "run", base), tmp_path / "merged")
    assert_suits_transformers_4(tmp_path / "merged", image_processor)
    written_run = tmp_path / "written"
    written_run.mkdir()
    open_model_folder(tiny_model_dir).write_processor_files(written_run)
    assert_suits_transformers_4(written_run, "LlavaImageProcessor")


def test_what_is_made_of_an_original_folder_suits_transformers_4(tmp_path, tiny_model_dir):
    original, _ = save_original(tiny_model_dir, tmp_path / "llava-v1.5-small", "llava-llama")
    assert export(original, tmp_path / "hf", "hf") == []
    assert_suits_transformers_4(tmp_path / "hf", "LlavaImageProcessor")
    assert tokens_of(tmp_path / "hf", 1088)[1088 - 1] == "[PAD1087]"


def test_a_list_of_extra_special_tokens_stays_known(tmp_path):
    """transformers 5 saves a list under a name that 4 takes for a dictionary."""
    tokenizer = byte_level_tokenizer(LLAMA_3)
    tokenizer.add_special_tokens({"extra_special_tokens": [AddedToken("<|seen|>")]})
    tokenizer.save_pretrained(str(tmp_path))
    assert written(tmp_path, "tokenizer_config.json")["extra_special_tokens"] == ["<|seen|>"]
    suit_transformers_4(tmp_path)
    settings = written(tmp_path, "tokenizer_config.json")
    assert (settings.get("extra_special_tokens"), settings["additional_special_tokens"]) == (
        None,
        ["<|seen|>"],
    )
    again = AutoTokenizer.from_pretrained(str(tmp_path))
    assert again.extra_special_tokens == ["<|seen|>"]
    assert again("a <|seen|> b")["input_ids"] == tokenizer("a <|seen|> b")["input_ids"]


def tokens_of(folder, rows):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return [tokenizer.id_to_token(row) for row in range(rows)]


def test_every_row_of_a_merged_model_has_a_token(tmp_path):
    base = save_base(tmp_path / "base")
    merge_adapters(save_run(tmp_path / "run", base), tmp_path / "merged")
    before, after = open_model_folder(base).tokenizer, open_model_folder(tmp_path / "merged").tokenizer
    assert (len(before), len(after)) == (1026, 1088)
    named = tokens_of(tmp_path / "merged", 1088)
    assert None not in named
    assert named[:1026] == before.convert_ids_to_tokens(range(1026))
    text = "Is [PAD 1030] broken? 绝缘子 <image>\n</s>"
    assert after(text)["input_ids"] == before(text)["input_ids"]
    assert after.decode([1030, 300, 1087], skip_special_tokens=True) == before.decode([300])
    merge_adapters(save_run(tmp_path / "again", tmp_path / "merged"), tmp_path / "second")
    assert tokens_of(tmp_path / "second", 1088) == named


def test_a_gap_in_the_vocabulary_is_said(tmp_path):
    path = tmp_path / "tokenizer.json"
    Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 3}, unk_token="a")).save(str(path))
    before = path.read_bytes()
    [note] = fill_vocabulary(tmp_path, 6)
    assert note.startswith("3 of the model's 6 tokens have no text (the first is 2)")
    assert path.read_bytes() == before

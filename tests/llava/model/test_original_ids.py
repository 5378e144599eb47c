"""Token ids are the original LLaVA's for every conv mode, on conversations of several turns with pictures.

The ids were made by the original package (tests/interop/original_ids.py) with the embedded base's tokenizer.
"""

import json

import pytest

from llava.conversation import get_template
from llava.model.folder import open_model_folder
from llava.processing.text import RecordProcessor
from llava.processing.vision import make_vision_processor
from tests.support.paths import REPO

VECTORS = json.loads((REPO / "tests" / "interop" / "original_ids.json").read_text("utf-8"))
IMAGE = -200
CASES = [
    (key, mode, name) for key in ("ids", "ids_with_controls") for mode, found in VECTORS[key].items()
    for name in found
]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizers(tiny_model_dir):
    plain, controls = open_model_folder(tiny_model_dir).tokenizer, open_model_folder(tiny_model_dir).tokenizer
    controls.add_special_tokens({"additional_special_tokens": VECTORS["controls"]})
    return {"ids": plain, "ids_with_controls": controls}


def test_all_modes_have_vectors():
    modes = {get_template(mode).name for mode in VECTORS["ids"]}
    assert modes == {
        "vicuna_v1", "llava_v1", "llava_v0", "llava_llama_2", "mistral_instruct", "chatml_direct", "mpt",
        "qwen_1_5", "llava_llama_3", "plain",
    }  # fmt: skip
    assert len(VECTORS["ids_with_controls"]) == 4


@pytest.mark.parametrize(("key", "mode", "name"), CASES)
def test_ids_are_the_originals(tokenizers, key, mode, name):
    tokenizer = tokenizers[key]
    texts = VECTORS["conversations"][name]
    turns = [("gpt" if position % 2 else "human", text) for position, text in enumerate(texts)]
    text = get_template(mode).text(turns, generation_prompt=len(turns) % 2 == 1)
    image = tokenizer.convert_tokens_to_ids("<image>")
    ids = [IMAGE if token == image else token for token in tokenizer(text)["input_ids"]]
    assert ids == VECTORS[key][mode][name]
    assert ids.count(IMAGE) == text.count("<image>")


@pytest.mark.parametrize("mode", VECTORS["labels"])
def test_training_labels_are_the_originals(tiny_model_dir, mode):
    tokenizer = open_model_folder(tiny_model_dir).tokenizer
    config = open_model_folder(tiny_model_dir).config
    config.vision_config.patch_size = config.vision_config.image_size  # one token a picture, as there
    images = make_vision_processor(config, open_model_folder(tiny_model_dir).image_processor)
    processor = RecordProcessor(tokenizer, images, get_template(mode), config.image_token_id)
    for name, labels in VECTORS["labels"][mode].items():
        texts = VECTORS["conversations"][name]
        turns = [("gpt" if position % 2 else "human", text) for position, text in enumerate(texts)]
        encoded = processor.encode(turns)
        assert encoded.labels == labels
        assert len(encoded.labels) == len(encoded.input_ids)

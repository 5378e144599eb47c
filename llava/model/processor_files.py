"""The files beside a model's weights that turn text and images into its inputs, in Hugging Face's form:
tokenizer, image processor, chat template. transformers 4 (from 4.50) and 5 read what is written here.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from llava.common.errors import InputError
from llava.common.files import read_json, write_json, write_text
from llava.conversation import ConvTemplate

_PARTS = {"image_processor": "preprocessor_config.json", "video_processor": "video_preprocessor_config.json"}
"""Parts of processor_config.json, and the files of their own that they have in transformers 4."""
_BACKENDS = ("Pil", "Fast")
"""What transformers appends to the name of an image processor's class for how it computes."""


def save_processor_files(
    target: Path,
    *,
    config: Any,
    tokenizer: Any,
    image_processor: Any,
    template: ConvTemplate,
    pieces: Path | None,
) -> None:
    """Write the tokenizer, image processor and chat template of a LLaVA-1.5 or 1.6 in Hugging Face's form.

    Args:
        target: The folder to write to.
        config: The model's Hugging Face config.
        tokenizer: Its fast tokenizer.
        image_processor: Its image processor.
        template: The conv mode whose Jinja form is written.
        pieces: The SentencePiece model to copy as tokenizer.model, if there is one.
    """
    family = "LlavaNext" if config.model_type == "llava_next" else "Llava"
    tokenizer.save_pretrained(str(target))
    if pieces is not None:
        shutil.copyfile(pieces, target / "tokenizer.model")
    write_text(target / "chat_template.jinja", template.jinja())
    images = image_processor.to_dict()
    images["image_processor_type"] = f"{family}ImageProcessor"  # in every release
    write_json(target / "preprocessor_config.json", images)
    processor = {
        "processor_class": f"{family}Processor",
        "image_token": "<image>",
        "num_additional_image_tokens": 1,
        "patch_size": config.vision_config.patch_size,
        "vision_feature_select_strategy": config.vision_feature_select_strategy,
    }
    write_json(target / "processor_config.json", processor)
    suit_transformers_4(target)


def suit_transformers_4(folder: Path) -> None:
    """Rewrite what transformers 5 saves so that transformers 4 reads it too; 5 reads it as before.

    - The tokenizer's class is PreTrainedTokenizerFast, which takes tokenizer.json as it is in both: 4 does
      not know TokenizersBackend, and classes of a family (LlamaTokenizer) put their own rules over the
      file's. In 4 it would hand the model token types too, which no LLaVA takes, and it stops at a list of
      extra special tokens, which both know as `additional_special_tokens`.
    - The image processor stands in preprocessor_config.json alone: 4 does not look for it in
      processor_config.json, and 4.51 fails where it is there. Its class has the name that it has in both.
    """
    path = folder / "tokenizer_config.json"
    settings = _read_object(path)
    if settings:
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
        settings.setdefault("model_input_names", ["input_ids", "attention_mask"])
        if isinstance(settings.get("extra_special_tokens"), list):
            settings["additional_special_tokens"] = settings.pop("extra_special_tokens")
        write_json(path, settings)
    processor = _read_object(folder / "processor_config.json")
    for part, name in _PARTS.items():
        settings = processor.pop(part, None) or _read_object(folder / name)
        if settings:
            write_json(folder / name, _without_backend(settings, f"{part}_type"))
    if processor:
        write_json(folder / "processor_config.json", processor)


def _read_object(path: Path) -> dict[str, Any]:
    """Return the file's JSON object, empty if there is no such file; InputError for another value."""
    content = read_json(path) if path.is_file() else {}
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object")
    return content


def _without_backend(settings: dict[str, Any], key: str) -> dict[str, Any]:
    """Return an image processor's settings with the name of its class that 4 and 5 know."""
    name = settings.get(key)
    if not isinstance(name, str):
        return settings
    for backend in _BACKENDS:
        name = name.removesuffix(backend)
    return settings | {key: name}


def pad_images(folder: Path) -> None:
    """Write into the image processor's settings that LLaVA-1.5 sees images padded to a square. transformers'
    processor crops by default: whoever loads the folder without us then sees what the model was trained
    on."""
    path = folder / "preprocessor_config.json"
    settings = _read_object(path)
    if settings:
        write_json(path, settings | {"image_processor_type": "LlavaImageProcessor", "do_pad": True})


def filler(row: int) -> str:
    """Return the token of a row of the embedding matrix that has none: llama.cpp's name for it."""
    return f"[PAD{row}]"


def fill_vocabulary(folder: Path, rows: int) -> list[str]:
    """Give each of the model's `rows` a token in tokenizer.json; return notes for the user.

    Models have more rows than tokens (a multiple of 64). Servers that list the likeliest tokens (vLLM with
    `logprobs`) stop at one without a text. Cutting the rows off would change the model's shape, so the
    rows behind the last token get a special token each, which no text contains and no answer shows.
    """
    path = folder / "tokenizer.json"
    known = set(Tokenizer.from_file(str(path)).get_vocab().values())
    missing = [row for row in range(rows) if row not in known]
    if not missing:
        return []
    if missing[0] < len(known):  # readers number added tokens themselves, behind the last: a gap stays
        return [
            f"{len(missing)} of the model's {rows} tokens have no text (the first is {missing[0]}): servers "
            "that list the likeliest tokens may stop at one"
        ]
    content = read_json(path)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    content["added_tokens"] += [{"id": row, "content": filler(row)} | flags for row in missing]
    write_json(path, content)
    return []

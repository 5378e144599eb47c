"""A small byte-level BPE tokenizer of Llama 3's kind, and a model with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from llava.export.gguf.vocab import PRE_TOKENIZERS
from llava.model.run_dir import copy_processor_files
from tests.support.family_models import family_config, family_image_processor, family_model

LLAMA_3 = next(expression for expression, name in PRE_TOKENIZERS.items() if name == "llama-bpe")


def byte_level_tokenizer(expression: str) -> Any:
    """A byte-level BPE that splits text by `expression`, with BOS, EOS, end of turn and <image>."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(expression), "isolated")
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_only])
    tokenizer.decoder = decoders.ByteLevel()
    corpus = ["The disc is broken. It's 1234 mm wide, isn't it?\n\nWhere? är det 绝缘子 "] * 20
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        corpus, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.add_special_tokens(["<|begin|>", "<|end|>", "<|eot_id|>", "<image>"])
    begin = tokenizer.token_to_id("<|begin|>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", begin)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|begin|>", eos_token="<|end|>", pad_token="<|end|>"
    )


def save_byte_level(tiny: Path, folder: Path, **text: Any) -> Path:
    """A model with that tokenizer, so of Llama 3's kind."""
    tokenizer = byte_level_tokenizer(LLAMA_3)
    text = {"vocab_size": len(tokenizer) + 8, "num_attention_heads": 4, "num_key_value_heads": 2, **text}
    config = family_config("llava-llama", side=24, patch=8, text=text)
    config.image_token_index = tokenizer.convert_tokens_to_ids("<image>")
    model = family_model(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(str(folder))
    copy_processor_files(tiny, folder)
    for name in ("processor_config.json", "tokenizer.model"):
        (folder / name).unlink()
    tokenizer.save_pretrained(str(folder))
    family_image_processor(config).save_pretrained(str(folder))
    return folder

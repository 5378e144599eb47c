"""The embedded base: its shape, its tokenizer, its folder."""

from __future__ import annotations

import math
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece as spm
import torch
from tokenizers import AddedToken
from torch import nn
from transformers import (
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlamaTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaImageProcessorPil,
    LlavaProcessor,
    PreTrainedTokenizerBase,
)

from llava.common.records import IMAGE_PLACEHOLDER
from llava.conversation import default_conversation as llava_prompt
from llava.model.processor_files import suit_transformers_4
from tiny_base.canvas import GRID, PATCH, SIZE, TRAIN_SEED
from tiny_base.questions import WORDS, questions
from tiny_base.scenes import render

WIDTH = 160
VOCABULARY = 1024
CONTEXT = 2048
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's


def build_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Train the SentencePiece model, write it and its exact twin for `tokenizers` into `folder`.

    Llama's settings: BPE, byte fallback, split digits, no normalisation, a space before the text.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    scenes = (render(TRAIN_SEED, i) for i in range(1500))
    lines = [f"{question} {answer}" for scene in scenes for _, question, answer in questions(scene, rng)]
    lines += [f"{word} {word.capitalize()}" for word in WORDS] * 12
    lines += [
        llava_prompt.text([("human", "<image>"), ("gpt", "")]).split("</s>")[0].replace("<image>", "")
    ] * 300
    trained = BytesIO()  # not `model_prefix`, which the file would name
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=trained,
        model_type="bpe",
        vocab_size=VOCABULARY,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        character_coverage=1.0,
        num_threads=1,
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(trained.getvalue())
    pieces = spm.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    vocabulary = {pieces.id_to_piece(i): i for i in range(len(pieces))}
    # A merge for every way to split a piece into two known ones, the earliest-learned piece first.
    merges = [
        (piece[:cut], piece[cut:])
        for piece in sorted(vocabulary, key=lambda p: -pieces.get_score(vocabulary[p]))
        for cut in range(1, len(piece))
        if not pieces.is_byte(vocabulary[piece]) and piece[:cut] in vocabulary and piece[cut:] in vocabulary
    ]
    tokenizer = LlamaTokenizer(vocab=vocabulary, merges=merges, legacy=True, add_bos_token=True)
    tokenizer.add_tokens([AddedToken(IMAGE_PLACEHOLDER, special=True, normalized=False)])
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.chat_template = llava_prompt.jinja()
    tokenizer.model_max_length = CONTEXT
    for text in [*lines[:500], "Hållo wörld 한국어 изолятор 3,14 \n  two  spaces", "a\tb"]:
        if tokenizer.encode(text, add_special_tokens=False) != pieces.encode(text):
            raise RuntimeError(f"tokenizer.json and tokenizer.model disagree on {text!r}")
    return tokenizer


def new_model() -> LlavaForConditionalGeneration:
    """The model with random weights. `<image>` and `<pad>` follow the VOCABULARY SentencePiece pieces."""
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=6,
        num_attention_heads=5,
        image_size=SIZE,
        patch_size=PATCH,
        projection_dim=WIDTH,
    )
    text = LlamaConfig(
        vocab_size=math.ceil((VOCABULARY + 2) / 64) * 64,
        hidden_size=WIDTH,
        intermediate_size=448,
        num_hidden_layers=4,
        num_attention_heads=5,
        num_key_value_heads=5,
        max_position_embeddings=CONTEXT,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=VOCABULARY + 1,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=VOCABULARY,
        image_seq_length=GRID * GRID,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    config.pad_token_id = VOCABULARY + 1
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config)
    start_like_a_trained_tower(model.model.vision_tower)
    return model


@torch.no_grad()
def start_like_a_trained_tower(tower: Any) -> None:
    """Positions and attention that look at the neighbourhood from the first step on: a tower that starts from
    noise needs many times the pictures before it compares an element with the next one.

    Sine-cosine positions in 2D (Beyer et al., arXiv 2205.01580; a temperature that suits a small grid), and
    mimetic attention (Trockman and Kolter, arXiv 2305.09828): queries equal keys, output undoes values.
    """
    steps = torch.arange(GRID, dtype=torch.float32)
    angles = steps[:, None] * 60.0 ** -(torch.arange(WIDTH // 4) / (WIDTH // 4))
    waves = torch.cat([angles.sin(), angles.cos()], 1)  # (GRID, WIDTH / 2)
    rows = waves[:, None].expand(GRID, GRID, -1)
    tower.embeddings.position_embedding.weight[1:] = torch.cat([rows, rows.transpose(0, 1)], 2).flatten(0, 1)
    for layer in tower.encoder.layers:
        attention = layer.self_attn
        nn.init.normal_(attention.q_proj.weight, std=WIDTH**-0.5)
        attention.k_proj.weight.copy_(attention.q_proj.weight)
        nn.init.orthogonal_(attention.v_proj.weight)
        attention.out_proj.weight.copy_(-0.4 * attention.v_proj.weight.T)


def save_model(
    model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> None:
    """Write the whole model folder in fp16: weights, configs, tokenizer, image processor, chat template."""
    model = model.to("cpu", torch.float16)  # type: ignore[arg-type]  # transformers' wrapper of `to` hides its self
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=VOCABULARY + 1)
    model.save_pretrained(folder)
    square = {"height": SIZE, "width": SIZE}
    LlavaProcessor(
        LlavaImageProcessorPil(
            size={"shortest_edge": SIZE},
            crop_size=square,
            do_pad=True,
            image_mean=list(MEAN),
            image_std=list(STD),
        ),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        chat_template=tokenizer.chat_template,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    suit_transformers_4(folder)

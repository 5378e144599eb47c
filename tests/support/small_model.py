"""Make a random LLaVA of a few layers whose answers vary in length, and answer with plain transformers."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from llava.model.builder import LoadedModel, load_model, make_processor


def random_model(tiny: Path, context: int = 2048) -> LoadedModel:
    """Make a model with grouped-query attention, and weights large enough that logits are far apart.

    Every 16th token ends an answer, so that answers have many lengths. The tokenizer and the image processor
    are those of the folder `tiny`.
    """
    base = load_model(tiny, device="cpu")
    torch.manual_seed(5)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, image_size=144,
            patch_size=24, initializer_range=0.2,
        ).to_dict(),
        text_config=LlamaConfig(
            vocab_size=1088, hidden_size=64, intermediate_size=128, num_hidden_layers=3,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=context,
            initializer_range=0.25,
        ).to_dict(),
        image_token_index=base.model.config.image_token_id,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "projector" in name and "weight" in name:
                parameter.normal_(std=0.3)  # answers must depend on images
        byte_pieces = base.tokenizer.convert_tokens_to_ids([f"<0x{byte:02X}>" for byte in range(256)])
        model.lm_head.weight[[2, *byte_pieces]] = 0  # never the most probable: random bytes are no characters
    model.generation_config.eos_token_id = [2, *range(20, 1000, 16)]
    return LoadedModel(
        model=model,
        tokenizer=base.tokenizer,
        image_processor=base.image_processor,
        processor=make_processor(config, base.tokenizer, base.image_processor, base.template),
        template=base.template,
        context_len=context,
        model_id="random",
    )


def image(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Make an image of coloured blocks; different seeds look different even to a random model."""
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST)


def plain_generate(loaded: LoadedModel, ids: list[int], images: list[Image.Image], limit: int) -> list[int]:
    """Answer one prompt with transformers' own `generate`; returns the tokens without the end token."""
    tokens = torch.tensor([ids])
    pixels = [loaded.processor.pixels(image, alone=len(images) == 1) for image in images]
    output = loaded.model.generate(
        input_ids=tokens,
        attention_mask=torch.ones_like(tokens),
        **loaded.processor.vision.inputs(pixels),
        do_sample=False,
        max_new_tokens=limit,
        pad_token_id=loaded.tokenizer.pad_token_id,
    )
    answer: list[int] = output[0, len(ids) :].tolist()
    ends = loaded.model.generation_config.eos_token_id
    return answer[:-1] if answer[-1] in (ends if isinstance(ends, list) else [ends]) else answer


def plain_text(loaded: LoadedModel, question: str, images: list[Image.Image], limit: int) -> str:
    """Answer one question with `plain_generate`; the images come first unless the question marks them."""
    if "<image>" not in question:
        question = "<image>\n" * len(images) + question
    sizes = [(p.height, p.width) for p in images]
    ids = loaded.processor.encode_prompt([("human", question)], sizes)
    tokens = plain_generate(loaded, ids, images, limit)
    return str(loaded.tokenizer.decode(tokens, skip_special_tokens=True)).strip()


def save_random_model(tiny: Path, folder: Path) -> Path:
    """Save a model whose greedy answers only end at --max-new-tokens, for tests that interrupt them."""
    loaded = random_model(tiny)
    loaded.model.generation_config.eos_token_id = 2
    shutil.copytree(tiny, folder)
    loaded.model.save_pretrained(folder)
    return folder

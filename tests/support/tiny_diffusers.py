"""Stable Diffusion pipelines of a few thousand random weights, saved as diffusers saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

SIDE = 64  # pixels of the pictures, 32 latents
WIDTH = 32


def tiny_tokenizer() -> CLIPTokenizer:
    """Return a CLIP tokenizer of single letters, for prompts of 77 tokens."""
    letters = [chr(code) for code in range(33, 127)]
    pieces = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    return CLIPTokenizer(vocabulary, [], model_max_length=77)


def _text_config(tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=WIDTH, num_hidden_layers=3,
        num_attention_heads=2, projection_dim=WIDTH, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip


def save_tiny_diffusion(folder: Path, xl: bool = False, predicts: str = "epsilon") -> Path:
    """Save a tiny SD, or SDXL; skips the test where diffusers is absent."""
    pytest.importorskip("diffusers")
    make_tiny_diffusion(xl, predicts).save_pretrained(folder)
    return folder


def make_tiny_diffusion(xl: bool = False, predicts: str = "epsilon") -> Any:
    """Return the pipeline of a tiny SD, or SDXL. `predicts` is what that of SD predicts."""
    import diffusers

    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    config = _text_config(tokenizer)
    of_xl: dict[str, Any] = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": WIDTH + 6 * 8,
        "use_linear_projection": True,
        "transformer_layers_per_block": (1, 2),
    }
    unet = diffusers.UNet2DConditionModel(
        sample_size=SIDE // 2,
        layers_per_block=1,
        block_out_channels=(16, 32),
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=2 * WIDTH if xl else WIDTH,
        attention_head_dim=8,
        **(of_xl if xl else {}),
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 16),
        norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        scaling_factor=0.13 if xl else 0.18215,
    )
    noising = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    parts: dict[str, Any] = {"unet": unet, "vae": vae, "tokenizer": tokenizer}
    if xl:  # as their authors' folders name samplers
        return diffusers.StableDiffusionXLPipeline(
            **parts,
            text_encoder=CLIPTextModel(config),
            text_encoder_2=CLIPTextModelWithProjection(config),
            tokenizer_2=tiny_tokenizer(),
            scheduler=diffusers.EulerDiscreteScheduler(**noising, timestep_spacing="leading"),
            add_watermarker=False,
        )
    return diffusers.StableDiffusionPipeline(
        **parts,
        text_encoder=CLIPTextModel(config),
        scheduler=diffusers.PNDMScheduler(**noising, skip_prk_steps=True, prediction_type=predicts),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )

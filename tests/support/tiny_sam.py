"""SAM of a few thousand random weights, saved as transformers saves it."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    SamConfig,
    SamMaskDecoderConfig,
    SamModel,
    SamPromptEncoderConfig,
    SamVisionConfig,
)

SIDE = 64  # of the square that they see, of 4 x 4 patches
WIDTH = 32


def save_tiny_sam(folder: Path) -> Path:
    """Save a tiny SAM, whose masks differ from place to place."""
    torch.manual_seed(0)
    config = SamConfig(
        vision_config=SamVisionConfig(
            hidden_size=WIDTH, output_channels=WIDTH, num_hidden_layers=2, num_attention_heads=2,
            image_size=SIDE, patch_size=16, window_size=2, global_attn_indexes=[1], num_pos_feats=WIDTH // 2,
            mlp_dim=WIDTH, initializer_range=0.5,
        ),
        prompt_encoder_config=SamPromptEncoderConfig(hidden_size=WIDTH, image_size=SIDE, patch_size=16),
        mask_decoder_config=SamMaskDecoderConfig(
            hidden_size=WIDTH, mlp_dim=WIDTH, num_hidden_layers=2, num_attention_heads=2,
            iou_head_hidden_dim=WIDTH,
        ),
        initializer_range=0.3,
    )  # fmt: skip
    SamModel(config).save_pretrained(folder)
    return folder

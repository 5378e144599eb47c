"""SAM and SAM 2 of a few thousand random weights, saved as transformers saves it."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2MaskDecoderConfig,
    Sam2Model,
    Sam2PromptEncoderConfig,
    Sam2VisionConfig,
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


def save_tiny_sam2(folder: Path) -> Path:
    """Save a tiny SAM 2."""
    torch.manual_seed(0)
    cells = SIDE // 4
    backbone = Sam2HieraDetConfig(
        hidden_size=8, num_attention_heads=1, image_size=[SIDE, SIDE], blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64], num_attention_heads_per_stage=[1, 2, 2, 2],
        window_size_per_stage=[4, 2, 4, 2], global_attention_blocks=[3],
        window_positional_embedding_background_size=[4, 4], initializer_range=0.2,
    )  # fmt: skip
    config = Sam2Config(
        vision_config=Sam2VisionConfig(
            backbone_config=backbone, backbone_channel_list=[64, 32, 16, 8], fpn_hidden_size=WIDTH,
            backbone_feature_sizes=[[cells, cells], [cells // 2] * 2, [cells // 4] * 2],
            initializer_range=0.2,
        ),
        prompt_encoder_config=Sam2PromptEncoderConfig(hidden_size=WIDTH, image_size=SIDE, patch_size=16),
        mask_decoder_config=Sam2MaskDecoderConfig(
            hidden_size=WIDTH, mlp_dim=WIDTH, num_hidden_layers=2, num_attention_heads=2,
            iou_head_hidden_dim=WIDTH,
        ),
        initializer_range=0.3,
    )  # fmt: skip
    Sam2Model(config).save_pretrained(folder)
    return folder

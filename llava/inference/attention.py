"""Attention for models whose heads share keys and values (grouped-query attention: Mistral, Qwen2).

Under a mask transformers' `sdpa` repeats keys and values for every head, unless one token alone is read: with
four to seven heads to a key that copies the cache as often, at every token. Here the heads of a group are
read as further tokens of one head instead, which gives the same numbers and copies nothing but the mask.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

SDPA_GROUPED = "sdpa_grouped"
"""The name that `attn_implementation` takes."""


def sdpa_grouped(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """`query` (rows, heads, new, dim), `key` and `value` (rows, key heads, columns, dim), `attention_mask`
    (rows, 1, new, columns) -> (rows, new, heads, dim). For inference: no dropout."""
    rows, heads, new, dim = query.shape
    groups = heads // key.shape[1]
    if groups == 1 or attention_mask is None or attention_mask.shape[1] != 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    # heads of one key follow each other: (rows, key heads, groups, new, dim)
    folded = query.reshape(rows, heads // groups, groups * new, dim)
    mask = attention_mask.repeat(1, 1, groups, 1)
    output = scaled_dot_product_attention(folded, key, value, attn_mask=mask, scale=scaling)
    return output.reshape(rows, heads, new, value.shape[-1]).transpose(1, 2).contiguous(), None


AttentionInterface.register(SDPA_GROUPED, sdpa_grouped)
AttentionMaskInterface.register(SDPA_GROUPED, sdpa_mask)

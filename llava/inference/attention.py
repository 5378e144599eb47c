"""Attention for models whose heads share keys and values (grouped-query attention: Mistral, Qwen2).

Given a mask, transformers' `sdpa` repeats keys and values for every head, unless it reads a single token:
with four to seven heads per key head, the cache is copied that many times at every token. Here the heads of a
group are passed as additional tokens of one head instead, which gives the same numbers and copies only the
mask.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

SDPA_GROUPED = "sdpa_grouped"
"""The name that transformers' `attn_implementation` takes."""


def sdpa_grouped(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Compute attention for inference (no dropout), with the signature of transformers' functions for it.

    Args:
        module: The attention module, with `num_key_value_groups`.
        query: (rows, heads, new, dim).
        key: (rows, key heads, columns, dim).
        value: As `key`.
        attention_mask: (rows, 1, new, columns); any other is left to transformers' `sdpa`.
        scaling: The factor of the scores; None for 1 / sqrt(dim).
        **kwargs: For transformers' `sdpa`.

    Returns:
        The output (rows, new, heads, dim), and None for the attention weights.
    """
    rows, heads, new, dim = query.shape
    groups = heads // key.shape[1]
    if groups == 1 or attention_mask is None or attention_mask.shape[1] != 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    # the heads of one key head follow each other: (rows, key heads, groups, new, dim)
    folded = query.reshape(rows, heads // groups, groups * new, dim)
    mask = attention_mask.repeat(1, 1, groups, 1)
    output = scaled_dot_product_attention(folded, key, value, attn_mask=mask, scale=scaling)
    return output.reshape(rows, heads, new, value.shape[-1]).transpose(1, 2).contiguous(), None


AttentionInterface.register(SDPA_GROUPED, sdpa_grouped)
AttentionMaskInterface.register(SDPA_GROUPED, sdpa_mask)

"""Attention computed in float32: the same answer as in double precision, gradients too."""

from __future__ import annotations

import torch
from torch import nn

from llava.train.float32_attention import sdpa_float32


class Layer(nn.Module):
    is_causal = True  # as every attention layer says of itself


def test_it_is_attention_in_float32_under_autocast() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, 9, 8, generator=generator) for _ in range(3))
    mask = torch.ones(2, 1, 9, 9, dtype=torch.bool).tril()
    mask[:, :, 5:, 2] = False
    wanted = [tensor.bfloat16().double().requires_grad_() for tensor in (query, key, value)]
    scores = wanted[0] @ wanted[1].transpose(-1, -2) / 8**0.5
    expected = scores.masked_fill(~mask, -torch.inf).softmax(-1) @ wanted[2]
    expected.square().sum().backward()

    given = [tensor.bfloat16().requires_grad_() for tensor in (query, key, value)]
    with torch.autocast("cpu", torch.bfloat16):
        output, _ = sdpa_float32(Layer(), *given, mask)
    assert output.dtype == torch.bfloat16
    # Its layout is (batch, tokens, heads, dimension); only the result is rounded to bfloat16.
    torch.testing.assert_close(output.transpose(1, 2).double(), expected, rtol=2**-8, atol=1e-6)
    output.float().square().sum().backward()
    for ours, theirs in zip(given, wanted, strict=True):
        assert ours.grad is not None
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=0.03, atol=0.01)

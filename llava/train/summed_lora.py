"""LoRA layers computed as one: the adapter is added to the frozen weight before the multiplication.

PEFT multiplies by W, then by A and by B, and scales and adds whole activations. A small model's layers are so
narrow that these passes over memory cost as much as W itself. With x (tokens, in) and W' = W + s B A:

    forward    y = x W'^T
    backward   dx = dy W',   dA = s (dy B)^T x,   dB = s dy^T (x A^T)

The numbers are PEFT's up to rounding. W' is made again for the backward pass, so that no second copy of the
weights is held. Only for float32: in bfloat16 the sum would lose what a small adapter adds.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from torch.nn.functional import linear


class _SummedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight, a, b)
        ctx.scaling = scaling
        return linear(x, torch.addmm(weight, b, a, alpha=scaling), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        x, weight, a, b = ctx.saved_tensors
        dy = gradients[0].reshape(-1, weight.shape[0])
        flat = x.reshape(-1, weight.shape[1])
        dx = None
        if ctx.needs_input_grad[0]:
            dx = (dy @ torch.addmm(weight, b, a, alpha=ctx.scaling)).view(x.shape)
        da = (dy @ b).t() @ flat * ctx.scaling
        db = dy.t() @ (flat @ a.t()) * ctx.scaling
        return dx, None, None, da, db, None


def _forward(self: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Compute the layer while it trains; a few tokens at a time, as in answering, PEFT's way is faster."""
    if not self.training:
        result: torch.Tensor = type(self).forward(self, x, *args, **kwargs)
        return result
    base, (name,) = self.base_layer, self.active_adapters
    a, b = self.lora_A[name].weight, self.lora_B[name].weight
    summed: torch.Tensor = _SummedLinear.apply(x, base.weight, base.bias, a, b, self.scaling[name])
    return summed


def sum_adapters_into_weights(model: nn.Module) -> None:
    """Let the LoRA layers of `model` that can be computed as one be so, while the model trains.

    Those can that have a float32 weight and a plain adapter: no dropout, no DoRA, no quantised weight.
    """
    for layer in model.modules():
        if not (isinstance(layer, LoraLayer) and type(layer.get_base_layer()) is nn.Linear):
            continue
        dropouts = layer.lora_dropout.values()
        plain = not layer.lora_variant and all(isinstance(dropout, nn.Identity) for dropout in dropouts)
        if plain and layer.get_base_layer().weight.dtype in (torch.float32, torch.float64):
            layer.forward = MethodType(_forward, layer)

"""The last decoder layer, computed only where there is something to learn.

Nothing but the LM head reads the last layer's output, and of that only the supervised positions, which are a
tenth of a packed row:

    row of a picture       <picture, 145 tokens> <question> answer <question> answer
    queries, MLP, norm                                      ******            ******
    keys and values        **********************************************************

Loss and gradients are those of the whole layer. In a model of 4 layers it saves a seventh of a step, in one
of 32 a fiftieth.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb


class _AllKeys:
    """Stands for a cache: it gives a layer the keys and values of all positions in place of those it made."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        self.keys, self.values = keys, values

    def update(self, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return self.keys, self.values


class SupervisedLastLayer:
    """Makes the last layer of a LLaVA's language model compute supervised positions alone, while it trains.

    Supervised is what the boolean `logits_to_keep` (B, T) of the model's forward says; without one, or with
    another mask than a dense one, the layer computes everything as before. The other positions' output is 0,
    which the LM head does not read.
    """

    def __init__(self, model: Any) -> None:
        """Take over the last layer of `model`, transformers' LLaVA with a Llama, Mistral or Qwen2 in it."""
        self.layer: Any = model.model.language_model.layers[-1]
        self._whole = self.layer.forward
        self._supervised: torch.Tensor | None = None
        self.layer.forward = self.forward
        # Else transformers drops the given keys where it checkpoints. They are only read: twice does no harm.
        self.layer._can_checkpoint_with_cache = True
        model.register_forward_pre_hook(self._note_supervised, with_kwargs=True)

    def _note_supervised(self, _: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        kept = kwargs.get("logits_to_keep")
        is_mask = isinstance(kept, torch.Tensor) and kept.dtype == torch.bool and kept.dim() == 2
        self._supervised = kept if is_mask else None

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: Any = None,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Compute the layer as transformers calls it.

        Args:
            hidden_states: (B, T, width).
            attention_mask: (B, 1, T, T), boolean or added to the scores.
            position_embeddings: Cosines and sines, (B or 1, T, head width) each.
            **kwargs: Whatever else the layer takes.

        Returns:
            (B, T, width).
        """
        supervised = self._supervised
        if (
            supervised is None
            or not self.layer.training
            or position_embeddings is None
            or not isinstance(attention_mask, torch.Tensor)
            or attention_mask.shape[-2] != hidden_states.shape[1]
        ):
            whole: torch.Tensor = self._whole(
                hidden_states,
                attention_mask=attention_mask,
                position_embeddings=position_embeddings,
                **kwargs,
            )
            return whole
        # Rows have different numbers of supervised positions; short ones compute some others too.
        most = int(supervised.sum(dim=1).max())
        chosen = torch.argsort(~supervised, dim=1, stable=True)[:, :most]  # (B, most)
        places = chosen[..., None].expand(-1, -1, hidden_states.shape[-1])
        cosine, sine = (table.expand(len(chosen), -1, -1) for table in position_embeddings)
        turns = chosen[..., None].expand(-1, -1, cosine.shape[-1])
        rows = chosen[:, None, :, None].expand(-1, 1, -1, attention_mask.shape[-1])
        kwargs["past_key_values"] = self._keys_and_values(hidden_states, cosine, sine)
        output = self._whole(
            hidden_states.gather(1, places),
            attention_mask=attention_mask.expand(len(chosen), -1, -1, -1).gather(2, rows),
            position_embeddings=(cosine.gather(1, turns), sine.gather(1, turns)),
            **kwargs,
        )
        return torch.zeros_like(hidden_states, dtype=output.dtype).scatter(1, places, output)

    def _keys_and_values(self, hidden: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> _AllKeys:
        attention = self.layer.self_attn
        normed = self.layer.input_layernorm(hidden)
        heads = (*hidden.shape[:2], -1, attention.head_dim)
        keys = attention.k_proj(normed).view(heads).transpose(1, 2)
        values = attention.v_proj(normed).view(heads).transpose(1, 2)
        keys, _ = apply_rotary_pos_emb(keys, keys, cosine, sine)
        return _AllKeys(keys, values)

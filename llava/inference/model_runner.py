"""A loaded model as the engine and the chats read with it: tokens and pictures in, logits out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, GenerationConfig

from llava.inference.attention import SDPA_GROUPED
from llava.inference.kv_cache import new_cache
from llava.model.builder import LoadedModel
from llava.processing.vision import ImageInput, Pixels


class ModelRunner:
    """`loaded`, its ends of an answer (`end_ids`, and `stop` as text) and its context in tokens."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        self.model = loaded.model
        self.tokenizer = loaded.tokenizer
        self.processor = loaded.processor
        text = self.model.config.text_config
        # with a window, attention forgets what is further back; a cache of branches does not
        self.context_len = min(
            loaded.context_len, getattr(text, "sliding_window", None) or loaded.context_len
        )
        special = {*self.tokenizer.all_special_tokens, *self.tokenizer.get_added_vocab()}
        ends = self.model.generation_config.eos_token_id
        end_ids = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
        end_ids += [self.tokenizer.convert_tokens_to_ids(s) for s in loaded.template.stop if s in special]
        self.end_ids = frozenset([*end_ids, self.tokenizer.eos_token_id])
        self.stop = tuple(s for s in loaded.template.stop if s not in special)
        pad = self.tokenizer.pad_token_id
        self.pad_id = int(self.tokenizer.eos_token_id if pad is None else pad)
        grouped = text.num_key_value_heads < text.num_attention_heads
        if grouped or text._attn_implementation != "sdpa":  # other kinds take no bool mask (`read`)
            self.model.set_attn_implementation({"text_config": SDPA_GROUPED})
        self.most_at_once: int | None = None  # questions, learnt from running out of memory

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Dropout off, and back on: the trainer asks questions of the model it is training."""
        if not self.model.training:  # either way goes through all modules, too slow for each word of a chat
            yield
            return
        self.model.eval()
        try:
            yield
        finally:
            self.model.train()

    def forward(self, ids: Tensor, mask: Tensor, cache: Cache, images: Sequence[Pixels] = ()) -> Tensor:
        """Read `ids` (rows, new) behind what `cache` holds; float32 logits (rows, vocabulary) of the last.

        `mask` (rows, cached + new) is 0 on padding; `pictures` fill the picture tokens among `ids` in order.
        """
        positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        return self.read(ids, mask, positions, cache, images)[:, -1].float()

    @torch.inference_mode()
    def read(
        self,
        ids: Tensor,
        mask: Tensor,
        positions: Tensor,
        cache: Cache,
        images: Sequence[Pixels] = (),
        keep: int = 1,
    ) -> Tensor:
        """As `forward`, at the given positions (rows, new); the logits (rows, keep, vocabulary) of the last
        `keep` tokens. `mask` may also say what each token sees: bool (rows, 1, new, cached + new)."""
        output = self.model(
            input_ids=ids,
            **self._image_inputs(images),
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        logits: Tensor = output.logits
        return logits

    def new_cache(self) -> Cache:
        """An empty cache for `forward`."""
        return new_cache()

    def pixels(self, images: Sequence[ImageInput]) -> list[Pixels]:
        """The pictures of one conversation made ready, where they are not yet."""
        alone = len(images) == 1
        return [p if isinstance(p, Pixels) else self.processor.pixels(p, alone=alone) for p in images]

    def _image_inputs(self, images: Sequence[Pixels]) -> dict[str, Any]:
        inputs = self.processor.vision.inputs(images)
        if inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(self.model.device, self.model.dtype)
        return inputs

    @torch.inference_mode()
    def beam_search(
        self, prompt: Sequence[int], images: Sequence[Pixels], num_beams: int, max_new_tokens: int
    ) -> list[int]:
        """The tokens of the best answer to one prompt: transformers' own beam search."""
        ids = torch.tensor([prompt], device=self.model.device)
        given = self._image_inputs(images)
        config = GenerationConfig(
            num_beams=num_beams,
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=sorted(self.end_ids),
            pad_token_id=self.pad_id,
        )
        # else what the model's folder says (a repetition penalty, ...) is added, which greedy answers ignore
        theirs, self.model.generation_config = self.model.generation_config, config
        try:
            output = self.model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), **given, generation_config=config
            )
        finally:
            self.model.generation_config = theirs
        tokens: list[int] = output[0, len(prompt) :].tolist()
        return tokens

"""Run a loaded model: token ids and images in, logits out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, GenerationConfig

from llava.inference.attention import SDPA_GROUPED
from llava.inference.grammar import Grammars
from llava.model.builder import LoadedModel
from llava.model.formats import VISION
from llava.processing.vision import ImageInput, Pixels


@dataclass(frozen=True)
class ImageWatch:
    """Sees the input of a layer of the vision tower in the passes that are made anyway.

    `observe` gets the images of a pass and (squares of all images, tokens, width).
    """

    layer: int
    observe: Callable[[Sequence[Pixels], Tensor], None]


class ModelRunner:
    """Runs the forward passes of one loaded model, for engines and chats alike.

    `context_len` is the model's context in tokens. An answer ends with any of `stop_token_ids`, or with any
    of `stop_strings`, which are the template's ends that are no special token. `max_branches` is how many
    branches fit in the memory together, learned from running out of it; None while nothing has shown a limit.
    `grammars` hold answers to JSON schemas.
    `image_watch`, where it is set, sees what the vision tower makes of all images that are read.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        self.model = loaded.model
        self.tokenizer = loaded.tokenizer
        self.processor = loaded.processor
        config = self.model.config.text_config
        # beyond a sliding window the model would attend to less than the cache of branches holds
        self.context_len = min(
            loaded.context_len, getattr(config, "sliding_window", None) or loaded.context_len
        )
        self.stop_token_ids, self.stop_strings = _stops(loaded)
        pad = self.tokenizer.pad_token_id
        self.pad_id = int(self.tokenizer.eos_token_id if pad is None else pad)
        grouped = config.num_key_value_heads < config.num_attention_heads
        if grouped or config._attn_implementation != "sdpa":  # others take no bool mask (see `forward`)
            self.model.set_attn_implementation({"text_config": SDPA_GROUPED})
        self.max_branches: int | None = None
        self.grammars = Grammars(self.tokenizer, self.stop_token_ids)
        self.image_watch: ImageWatch | None = None

    @contextmanager
    def eval_mode(self) -> Iterator[None]:
        """Turn dropout off inside the block: the trainer asks questions of the model that it is training."""
        if not self.model.training:  # switching walks through all modules, too slow for each token of a chat
            yield
            return
        self.model.eval()
        try:
            yield
        finally:
            self.model.train()

    @torch.inference_mode()
    def forward(
        self,
        ids: Tensor,
        mask: Tensor,
        positions: Tensor,
        cache: Cache,
        images: Sequence[Pixels] = (),
        keep: int = 1,
    ) -> Tensor:
        """Read new tokens after those that the cache holds, and add them to it.

        Args:
            ids: (rows, new) token ids.
            mask: (rows, cached + new), 0 on padding; or bool (rows, 1, new, cached + new), what each token
                attends to.
            positions: (rows, new).
            cache: The KV cache (kv_cache.py); it grows by the new columns.
            images: Fill the image tokens among `ids`, in their order.
            keep: How many logits per row are wanted.

        Returns:
            The logits (rows, keep, vocabulary) of the last `keep` tokens, in the model's dtype.
        """
        with self._watched(images):
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

    def extend(self, ids: Sequence[int], cache: Cache, cached: int, images: Sequence[Pixels] = ()) -> Tensor:
        """Read one sequence's next tokens after its first `cached`, which the cache holds.

        Returns:
            float32 logits (1, vocabulary) of the last token.
        """
        device = self.model.device
        columns = cached + len(ids)
        mask = torch.ones(1, columns, dtype=torch.long, device=device)
        positions = torch.arange(cached, columns, device=device)[None]
        return self.forward(torch.tensor([ids], device=device), mask, positions, cache, images)[:, -1].float()

    @torch.inference_mode()
    def see(self, images: Sequence[Pixels]) -> None:
        """Have the vision tower alone read images, for the `image_watch`."""
        with self._watched(images):
            self.model.model.vision_tower(self._image_inputs(images)["pixel_values"])

    @contextmanager
    def _watched(self, images: Sequence[Pixels]) -> Iterator[None]:
        """Have the `image_watch` see the images that the tower reads inside the block."""
        watch = self.image_watch
        if watch is None or not images:
            yield
            return
        layer = next(
            module
            for name, module in self.model.named_modules()
            if name.startswith(VISION) and name.endswith(f".layers.{watch.layer}")
        )
        handle = layer.register_forward_pre_hook(lambda _, inputs: watch.observe(images, inputs[0]))
        try:
            yield
        finally:
            handle.remove()

    def prepare_images(self, images: Sequence[ImageInput]) -> list[Pixels]:
        """Turn the images of one conversation into pixel values, where they are not yet."""
        alone = len(images) == 1
        return [p if isinstance(p, Pixels) else self.processor.pixels(p, alone=alone) for p in images]

    def _image_inputs(self, images: Sequence[Pixels]) -> dict[str, Any]:
        inputs = self.processor.vision.inputs(images)
        if inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(self.model.device, self.model.dtype)
        return inputs

    @torch.inference_mode()
    def beam_search(
        self, prompt_ids: Sequence[int], images: Sequence[Pixels], num_beams: int, max_new_tokens: int
    ) -> list[int]:
        """Search for the best answer to one prompt with transformers' own beam search.

        Args:
            prompt_ids: The prompt, as `RecordProcessor.encode_prompt` gives it.
            images: Fill the prompt's image tokens, in their order.
            num_beams: The number of beams.
            max_new_tokens: The longest answer, in tokens.

        Returns:
            The token ids of the answer.
        """
        ids = torch.tensor([prompt_ids], device=self.model.device)
        config = GenerationConfig(
            num_beams=num_beams,
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=sorted(self.stop_token_ids),
            pad_token_id=self.pad_id,
        )
        # The folder's own settings (a repetition penalty, ...) would be added, which greedy answers ignore.
        folder_config, self.model.generation_config = self.model.generation_config, config
        try:
            output = self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                **self._image_inputs(images),
                generation_config=config,
            )
        finally:
            self.model.generation_config = folder_config
        tokens: list[int] = output[0, len(prompt_ids) :].tolist()
        return tokens


def _stops(loaded: LoadedModel) -> tuple[frozenset[int], tuple[str, ...]]:
    """Return the token ids, and the template's strings without a token of their own, that end an answer."""
    tokenizer = loaded.tokenizer
    special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    eos = loaded.model.generation_config.eos_token_id
    ids = [] if eos is None else [eos] if isinstance(eos, int) else list(eos)
    ids += [tokenizer.convert_tokens_to_ids(stop) for stop in loaded.template.stop if stop in special]
    strings = tuple(stop for stop in loaded.template.stop if stop not in special)
    return frozenset([*ids, tokenizer.eos_token_id]), strings

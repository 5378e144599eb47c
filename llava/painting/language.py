"""Lets a language model in a folder write prompts, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from llava.common.errors import InputError, one_line
from llava.model.builder import choose_device
from llava.model.formats import UNUSABLE
from llava.model.hub import resolve_folder

_MAX_TOKENS = 512  # of an answer: a prompt, and what a model thinks before it
_MAX_CONTINUED = 96  # of a model that only continues a text, and would not end with the prompt


class LanguageModel:
    """Answers an instruction, always the same: the likeliest tokens are taken."""

    def __init__(self, model: str | Path, device: str | None = None) -> None:
        """Load a model.

        Args:
            model: A folder that transformers saved, with weights in safetensors; or a Hub name.
            device: Defaults to CUDA where there is one, in the type that its weights are stored in; a CPU
                computes in float32.

        Raises:
            InputError: It cannot be loaded, or is no language model.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        device = choose_device(device)
        folder = resolve_folder(model)
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype="auto" if device.startswith("cuda") else torch.float32,
                use_safetensors=True,
                local_files_only=True,
            )
            self._model = loaded.eval().requires_grad_(False).to(device)
        except (*UNUSABLE, RuntimeError) as error:
            raise InputError(f"{folder}: no language model that can be loaded ({one_line(error)})") from None

    @torch.inference_mode()
    def write(self, instruction: str) -> str:
        """Answer an instruction, in the model's own chat template if it has one; else continue the text."""
        text = instruction
        if chat := self._tokenizer.chat_template:
            asked = [{"role": "user", "content": instruction}]
            text = self._tokenizer.apply_chat_template(
                asked, chat_template=chat, tokenize=False, add_generation_prompt=True
            )
        encoded = self._tokenizer(text, return_tensors="pt", add_special_tokens=not chat)
        ids = encoded.input_ids.to(self._model.device)
        ending = self._tokenizer.eos_token_id
        answer = self._model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=_MAX_TOKENS if chat else _MAX_CONTINUED,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=ending if self._tokenizer.pad_token_id is None else self._tokenizer.pad_token_id,
        )
        written: str = self._tokenizer.decode(answer[0, ids.shape[1] :], skip_special_tokens=True)
        return written.strip()

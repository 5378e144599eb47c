"""llama-cpp-python 0.3.8 (spring 2025) in the place of the release that llava.export.gguf.llamacpp calls: its
pictures go through libllava, a whole file at a time, and its prompts are put together by the caller."""

from __future__ import annotations

import ctypes
import io
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from PIL import Image

from llava.common.errors import InputError
from llava.export.gguf.llamacpp import LlamaCpp, PromptPart


class OldLlamaCpp(LlamaCpp):
    def _load_vision(self, mmproj: Path) -> str:
        from llama_cpp import llava_cpp

        # flash attention is a bool there, off by default; what llama_model_free frees has another name
        self._llama.LLAMA_FLASH_ATTN_TYPE_DISABLED = 0
        self._llama.llama_model_free = llama_cpp.llama_free_model
        self._llava: Any = llava_cpp
        self._vision = llava_cpp.clip_model_load(str(mmproj).encode(), 0)
        if not self._vision:
            raise InputError(f"llama.cpp cannot load {mmproj}: {self._last_error()}")
        return "<__media__>"

    def _free_vision(self) -> None:
        self._llava.clip_free(self._vision)

    def read_prompt(self, text: str, image: np.ndarray | None = None) -> list[PromptPart]:
        """As its Llava15ChatHandler does it: the texts around a picture are read each for itself."""
        before, _, after = text.partition(self.marker)
        parts: list[PromptPart] = [self._ids(before, first=True)]
        if image is not None:
            parts += [self._embeddings(image), self._ids(after, first=False)]
        return parts

    def _ids(self, text: str, *, first: bool) -> list[int]:
        encoded = text.encode()
        room = len(encoded) + 2
        ids = (self._llama.llama_token * room)()
        count = self._llama.llama_tokenize(self._vocab, encoded, len(encoded), ids, room, first, True)
        return list(ids[:count])

    def _embeddings(self, image: np.ndarray) -> np.ndarray:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        content = np.frombuffer(file.getvalue(), np.uint8)
        made = self._llava.llava_image_embed_make_with_bytes(
            self._vision, self._threads, content.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8)), len(content)
        )
        try:
            shape = (made.contents.n_image_pos, self.width)
            return np.ctypeslib.as_array(made.contents.embed, shape=shape).copy()
        finally:
            self._llava.llava_image_embed_free(made)

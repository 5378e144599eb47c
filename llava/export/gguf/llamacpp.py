"""Our two GGUF files in llama.cpp, through llama-cpp-python's low-level functions: ids, embeddings, logits.

Everything is computed in float32 where llama.cpp lets us choose (the key-value cache, no flash attention), so
that what differs from torch differs by the files or by llama.cpp's own arithmetic.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from packaging.version import Version

from llava.common.environment import how_to_install
from llava.common.errors import InputError

PromptPart = list[int] | np.ndarray
"""A piece of a prompt: token ids, or the embeddings (tokens, width) float32 of an image."""


OLDEST = Version("0.3.36")
"""The llama-cpp-python whose functions are called here: their arguments change from release to release."""


def require_llama_cpp() -> str:
    """Return the version of llama-cpp-python; InputError if it is absent or too old."""
    if importlib.util.find_spec("llama_cpp") is None:
        raise InputError(f"--verify needs llama-cpp-python: {how_to_install('llamacpp')}")
    found = version("llama-cpp-python")
    if Version(found) < OLDEST:
        raise InputError(
            f"--verify needs llama-cpp-python {OLDEST} or later, {found} is installed: "
            f"{how_to_install('llamacpp')}"
        )
    return found


class LlamaCpp:
    """Holds a language model and its mmproj file in llama.cpp; a context manager, which frees them."""

    def __init__(self, text: Path, mmproj: Path) -> None:
        import llama_cpp

        self._llama: Any = llama_cpp
        self._log_lines: list[str] = []
        self._log = llama_cpp.llama_log_callback(lambda level, line, _: self._log_lines.append(line.decode()))
        llama_cpp.llama_log_set(self._log, ctypes.c_void_p())
        llama_cpp.llama_backend_init()
        self._threads = torch.get_num_threads()
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = 0
        self._model: Any = llama_cpp.llama_model_load_from_file(str(text).encode(), params)
        if not self._model:
            raise InputError(f"llama.cpp cannot load {text}: {self._last_error()}")
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        self.vocab_size = int(llama_cpp.llama_vocab_n_tokens(self._vocab))
        self.width = int(llama_cpp.llama_model_n_embd(self._model))
        self.marker = self._load_vision(mmproj)

    def _load_vision(self, mmproj: Path) -> str:
        """Load the vision tower; return what marks an image's place in a prompt."""
        from llama_cpp import mtmd_cpp

        self._mtmd: Any = mtmd_cpp
        mtmd_cpp.mtmd_log_set(self._log, ctypes.c_void_p())
        params = mtmd_cpp.mtmd_context_params_default()
        params.use_gpu = False
        params.print_timings = False
        params.n_threads = self._threads
        params.flash_attn_type = self._llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.warmup = False
        self._vision: Any = mtmd_cpp.mtmd_init_from_file(str(mmproj).encode(), self._model, params)
        if not self._vision:
            raise InputError(f"llama.cpp cannot load {mmproj}: {self._last_error()}")
        return str(mtmd_cpp.mtmd_default_marker().decode())

    def __enter__(self) -> LlamaCpp:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._free_vision()
        self._llama.llama_model_free(self._model)

    def _free_vision(self) -> None:
        self._mtmd.mtmd_free(self._vision)

    def _last_error(self) -> str:
        lines = [
            line.strip() for line in self._log_lines if "error" in line.lower() or "fail" in line.lower()
        ]
        return lines[0] if lines else "it gives no reason"

    def read_prompt(self, text: str, image: np.ndarray | None = None) -> list[PromptPart]:
        """Return the prompt as llama.cpp reads it: its own token ids, with its BOS, and its own embeddings of
        `image` (height, width, 3) uint8 where `marker` stands in `text`."""
        mtmd = self._mtmd
        params = mtmd.mtmd_input_text()
        encoded = text.encode()
        params.text, params.text_len = encoded, len(encoded)
        params.add_special, params.parse_special = True, True
        bitmaps = []
        if image is not None:
            height, width, _ = image.shape
            data = np.ascontiguousarray(image).ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
            bitmaps.append(mtmd.mtmd_bitmap_init(width, height, data))
        chunks = mtmd.mtmd_input_chunks_init()
        try:
            array = (mtmd.mtmd_bitmap_p_ctypes * len(bitmaps))(*bitmaps)
            problem = mtmd.mtmd_tokenize(self._vision, chunks, ctypes.byref(params), array, len(bitmaps))
            if problem:
                raise InputError(f"llama.cpp cannot read the prompt (mtmd_tokenize says {problem})")
            count = mtmd.mtmd_input_chunks_size(chunks)
            return [self._part(mtmd.mtmd_input_chunks_get(chunks, index)) for index in range(count)]
        finally:
            mtmd.mtmd_input_chunks_free(chunks)
            for bitmap in bitmaps:
                mtmd.mtmd_bitmap_free(bitmap)

    def _part(self, chunk: Any) -> PromptPart:
        mtmd = self._mtmd
        if mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_TEXT:
            length = ctypes.c_size_t()
            ids = mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(length))
            return [int(ids[index]) for index in range(length.value)]
        if mtmd.mtmd_encode_chunk(self._vision, chunk):
            raise InputError("llama.cpp cannot encode the picture (mtmd_encode_chunk)")
        tokens = mtmd.mtmd_input_chunk_get_n_tokens(chunk)
        made = mtmd.mtmd_get_output_embd(self._vision)
        return np.ctypeslib.as_array(made, shape=(tokens, self.width)).copy()

    def answer(
        self, prompt: Sequence[PromptPart], limit: int, stop: set[int]
    ) -> tuple[np.ndarray, list[int]]:
        """Return the logits (rows, vocabulary) of a prompt and the greedy answer's ids after it.

        Rows are the prompt's tokens in their order; of an image only its last. The answer ends before a
        token of `stop` or after `limit`.
        """
        llama = self._llama
        longest = sum(len(part) for part in prompt) + limit
        params = llama.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = longest
        params.n_threads = params.n_threads_batch = self._threads
        params.type_k = params.type_v = llama.GGML_TYPE_F32
        params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
        context = llama.llama_init_from_model(self._model, params)
        if not context:
            raise InputError(f"llama.cpp cannot make a context of {longest} tokens: {self._last_error()}")
        try:
            past = 0
            logits: list[np.ndarray] = []
            answer: list[int] = []
            for part in prompt:
                logits.append(self._decode(context, part, past))
                past += len(part)
            last = logits[-1][-1]
            while len(answer) < limit and (token := int(last.argmax())) not in stop:
                answer.append(token)
                last = self._decode(context, [token], past)[-1]
                past += 1
            return np.concatenate(logits), answer
        finally:
            llama.llama_free(context)

    def _decode(self, context: Any, part: PromptPart, past: int) -> np.ndarray:
        """Return logits after each token of a part, or after an image's last, that follows `past` tokens."""
        llama, length = self._llama, len(part)
        is_image = isinstance(part, np.ndarray)
        batch = llama.llama_batch_init(length, self.width if is_image else 0, 1)
        try:
            batch.n_tokens = length
            if isinstance(part, np.ndarray):
                rows = np.ascontiguousarray(part, dtype=np.float32)
                ctypes.memmove(batch.embd, rows.ctypes.data, rows.nbytes)
            for index in range(length):
                if not isinstance(part, np.ndarray):
                    batch.token[index] = part[index]
                batch.pos[index] = past + index
                batch.n_seq_id[index] = 1
                batch.seq_id[index][0] = 0
                batch.logits[index] = not is_image or index == length - 1
            problem = llama.llama_decode(context, batch)
            if problem:
                raise InputError(f"llama.cpp cannot read the prompt (llama_decode says {problem})")
            wanted = [length - 1] if is_image else range(length)
            return np.stack(
                [
                    np.ctypeslib.as_array(
                        llama.llama_get_logits_ith(context, index), shape=(self.vocab_size,)
                    ).copy()
                    for index in wanted
                ]
            )
        finally:
            llama.llama_batch_free(batch)

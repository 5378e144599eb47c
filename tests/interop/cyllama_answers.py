"""Greedy answers and picture embeddings of llama.cpp, for tests/interop/check_cyllama.py, which runs this
with the Python that has cyllama:

    cyllama_answers.py JOB.json ANSWERS.json

A job names the two GGUF files, the tokens that end an answer, and for each question its prompt, with
`<__media__>` where the picture goes, and its picture. Nothing of ours is imported.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from cyllama.llama import llama_cpp
from PIL import Image

CONTEXT = 1024
IMAGE = 1  # MTMD_INPUT_CHUNK_TYPE_IMAGE


class LlamaCpp:
    def __init__(self, text: str, mmproj: str) -> None:
        params = llama_cpp.LlamaModelParams()
        params.n_gpu_layers = 0
        self.model = llama_cpp.LlamaModel(text, params, False)
        params = llama_cpp.LlamaContextParams()
        params.n_ctx = params.n_batch = params.n_ubatch = CONTEXT
        params.flash_attn_type = 0  # LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.type_k = params.type_v = 0  # GGML_TYPE_F32
        self.context = llama_cpp.LlamaContext(self.model, params, False)
        params = llama_cpp.MtmdContextParams(use_gpu=False, flash_attn_type=0)
        self.vision = llama_cpp.MtmdContext(mmproj, self.model, params)

    def read(self, prompt: str, picture: str) -> Any:
        image = Image.open(picture).convert("RGB")
        bitmap = llama_cpp.MtmdBitmap.create_image(image.width, image.height, image.tobytes())
        return self.vision.tokenize(prompt, [bitmap], True, True)

    def embeddings(self, chunks: Any) -> list[list[float]]:
        """Of the picture, (tokens, width)."""
        chunk = next(chunks[place] for place in range(len(chunks)) if int(chunks[place].type) == IMAGE)
        if self.vision.encode_chunk(chunk):
            raise SystemExit("llama.cpp cannot encode the picture")
        found: list[list[float]] = self.vision.get_output_embeddings(chunk.n_tokens, self.model.n_embd)
        return found

    def answer(self, chunks: Any, limit: int, stop: list[int]) -> list[int]:
        self.context.kv_cache_clear()
        past = self.vision.eval_chunks(self.context, chunks, 0, 0, CONTEXT, True)
        sampler = llama_cpp.LlamaSampler()
        sampler.add_greedy()
        answer: list[int] = []
        while len(answer) < limit and (token := sampler.sample(self.context, -1)) not in stop:
            answer.append(token)
            batch = llama_cpp.LlamaBatch(n_tokens=1, embd=0, n_seq_max=1)
            batch.add(token, past, [0], True)
            self.context.decode(batch)
            past += 1
        return answer


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    llama_cpp.disable_logging()
    theirs = LlamaCpp(job["text"], job["mmproj"])
    answers, embeddings = [], None
    for question in job["questions"]:
        chunks = theirs.read(question["prompt"], question["picture"])
        if embeddings is None:
            embeddings = theirs.embeddings(chunks)
        answers.append(theirs.answer(chunks, job["limit"], job["stop"]))
    Path(sys.argv[2]).write_text(json.dumps({"answers": answers, "embeddings": embeddings}))


if __name__ == "__main__":
    main()

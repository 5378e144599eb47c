"""One contender of benchmarks/infer_speed.py, in a process of its own.

The job is JSON on the command line, the result JSON on the last line of the output.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import transformers
from transformers import LlavaForConditionalGeneration

from benchmarks.train_contenders import model_config
from benchmarks.train_job import IMAGE_SIDE, TOKENIZER_FOLDER, image, question_and_answer
from llava.common.records import IMAGE_PLACEHOLDER
from llava.conversation import ChatTurns
from llava.inference.chat import Chat
from llava.inference.engine import Engine, Request
from llava.inference.sampling import decode_text
from llava.model.builder import LoadedModel, load_model, make_processor
from llava.processing.vision import ImageInput, Pixels

Talk = tuple[ChatTurns, list[ImageInput]]
SPREAD = 5.0  # of the weights, times transformers' own
CHAT_TURNS = 5  # second turns that are timed; the median counts


def random_model(device: str, key_heads: int | None = None) -> LoadedModel:
    """LLaVA-1.5-7B's shape in bfloat16 on CUDA, a small one in float32 on the CPU. No answer ends by itself,
    and the weights are large enough that answers depend on question and picture. `key_heads`: heads of keys
    that the language model's heads share (grouped-query attention)."""
    tiny = load_model(str(TOKENIZER_FOLDER), device="cpu")
    config = model_config(device)
    if key_heads:
        config.text_config.num_key_value_heads = key_heads
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16 if device == "cuda" else torch.float32)
    with torch.device(device):
        model: Any = LlavaForConditionalGeneration(config).eval()
    torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and "embed" not in name:
                parameter.mul_(SPREAD)
    model.generation_config.eos_token_id = None
    images: Any = tiny.image_processor
    images.size = {"shortest_edge": IMAGE_SIDE}
    images.crop_size = {"height": IMAGE_SIDE, "width": IMAGE_SIDE}
    processor = make_processor(config, tiny.tokenizer, images, tiny.template)
    return LoadedModel(
        model=model, tokenizer=tiny.tokenizer, image_processor=images, processor=processor,
        template=tiny.template, context_len=4096, model_id="random",
    )  # fmt: skip


def make_requests(loaded: LoadedModel, images: int, questions: int, first: int = 0) -> list[Request]:
    """Pictures are made ready before the clock starts, for every contender."""
    rng = np.random.default_rng(first)
    requests = []
    for number in range(first, first + images):
        shown = loaded.processor.pixels(image(number))
        asked = [question_and_answer(rng)[0] for _ in range(questions)]
        requests += [Request(f"{number}-{turn}", text, [shown]) for turn, text in enumerate(asked)]
    return requests


def ours(loaded: LoadedModel, requests: Sequence[Request], job: dict[str, Any]) -> list[str]:
    options = {"max_new_tokens": job["tokens"], "batch_size": job["batch"]}
    found = {result.question_id: result.text for result in _endless(loaded).stream(requests, **options)}
    return [found[request.question_id] for request in requests]


def one_at_a_time(loaded: LoadedModel, requests: Sequence[Request], job: dict[str, Any]) -> list[str]:
    """The original LLaVA's way (llava/eval/model_vqa.py): `generate` for every question."""
    return [text for request in requests for text in _generate(loaded, [_talk(request)], job["tokens"])]


def batched(loaded: LoadedModel, requests: Sequence[Request], job: dict[str, Any]) -> list[str]:
    """transformers' `generate` for as many questions at a time, each with its picture, padded on the left."""
    talks, size = [_talk(request) for request in requests], job["batch"]
    batches = [talks[start : start + size] for start in range(0, len(talks), size)]
    return [text for batch in batches for text in _generate(loaded, batch, job["tokens"])]


CONTENDERS: dict[str, Callable[..., Any]] = {
    "ours": ours,
    "one at a time": one_at_a_time,
    "batched generate": batched,
}


def _endless(loaded: LoadedModel) -> Engine:
    """Every answer has all its tokens, as for the other contenders."""
    engine = Engine(loaded)
    engine.runner.stop_token_ids = frozenset()
    engine.runner.stop_strings = ()
    return engine


def _talk(request: Request) -> Talk:
    return [("human", f"{IMAGE_PLACEHOLDER}\n{request.text}")], list(request.images)


@torch.inference_mode()
def _generate(loaded: LoadedModel, talks: Sequence[Talk], tokens: int) -> list[str]:
    model: Any = loaded.model
    prompts = [loaded.processor.encode_prompt(turns) for turns, _ in talks]
    width = max(map(len, prompts))
    pad = loaded.tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    pixels = [image for _, images in talks for image in images if isinstance(image, Pixels)]
    inputs = loaded.processor.vision.inputs(pixels)
    inputs["pixel_values"] = inputs["pixel_values"].to(model.device, model.dtype)
    output = model.generate(
        input_ids=ids, attention_mask=mask, **inputs, do_sample=False, max_new_tokens=tokens, pad_token_id=pad
    )
    return [decode_text(loaded.tokenizer, row).strip() for row in output[:, width:].tolist()]


def second_turn(loaded: LoadedModel, contender: str) -> float:
    """Milliseconds from the second question about a picture to the first token of its answer; the median of
    `CHAT_TURNS` talks. Without a chat that keeps its cache the whole talk is read again."""
    rng = np.random.default_rng(7)
    waited = []
    for number in range(CHAT_TURNS + 1):
        first, second = (question_and_answer(rng)[0] for _ in range(2))
        shown = loaded.processor.pixels(image(500 + number))
        chat = Chat(_endless(loaded).runner, max_new_tokens=16)
        chat.add_image(shown)
        answer = "".join(chat.ask(first))
        talk: Talk = [*_talk(Request("", first, [shown]))[0], ("gpt", answer), ("human", second)], [shown]
        _wait(loaded)
        begin = time.perf_counter()
        if contender == "ours":
            next(chat.ask(second))
        else:
            _generate(loaded, [talk], 1)
        _wait(loaded)
        waited.append(1000 * (time.perf_counter() - begin))
    return statistics.median(waited[1:])


def _wait(loaded: LoadedModel) -> None:
    if loaded.model.device.type == "cuda":
        torch.cuda.synchronize()


def run(job: dict[str, Any]) -> dict[str, Any]:
    loaded = random_model(job["device"], job["key_heads"])
    answer = CONTENDERS[job["contender"]]
    cuda = job["device"] == "cuda"
    answer(loaded, make_requests(loaded, 2, min(job["questions"], job["batch"]), first=900), job)  # warm
    requests = make_requests(loaded, job["pictures"], job["questions"])
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    _wait(loaded)
    begin = time.perf_counter()
    texts = answer(loaded, requests, job)
    _wait(loaded)
    seconds = time.perf_counter() - begin
    peak = torch.cuda.max_memory_allocated() if cuda else _peak_rss()
    found = {
        "seconds": seconds,
        "texts": texts,
        "peak_mib": peak / 2**20,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "where": torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads",
    }
    if job["chat"]:
        found["second_turn_ms"] = second_turn(loaded, job["contender"])
    return found


def _peak_rss() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))

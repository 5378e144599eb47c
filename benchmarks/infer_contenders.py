"""Run one contender of benchmarks/infer_speed.py, in a process of its own.

The job is JSON on the command line, the result JSON on the last line of the output.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import LlavaForConditionalGeneration

from benchmarks.train_contenders import copy_processor, model_config
from benchmarks.train_job import (
    CHATS,
    IMAGE_SIDE,
    TOKENIZER_FOLDER,
    image,
    question_and_answer,
    questions_of_images,
)
from llava.common.records import IMAGE_PLACEHOLDER
from llava.conversation import ChatTurns
from llava.export.writers import write_config, write_hub_tensors
from llava.inference.chat import Chat
from llava.inference.engine import Engine, Request
from llava.inference.sampling import decode_text
from llava.model.builder import LoadedModel, load_model, make_processor
from llava.model.shards import DEFAULT_SHARD
from llava.processing.vision import ImageInput, Pixels

Conversation = tuple[ChatTurns, list[ImageInput]]
WEIGHT_SCALE = 5.0  # the matrices' factor, with which answers depend on question and image


def random_model(device: str, key_heads: int | None = None) -> LoadedModel:
    """Make a random model whose answers never end by themselves.

    It has LLaVA-1.5-7B's shape in bfloat16 on CUDA, a small one in float32 on the CPU. `key_heads` is the
    number of key heads that the language model's heads share (grouped-query attention).
    """
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
                parameter.mul_(WEIGHT_SCALE)
        # Answers are words: no bytes, which alone are no characters, and no ids that the tokenizer lacks.
        pieces = tiny.tokenizer.convert_tokens_to_ids([f"<0x{byte:02X}>" for byte in range(256)])
        model.lm_head.weight[pieces] = 0
        model.lm_head.weight[len(tiny.tokenizer) :] = 0
    model.generation_config.eos_token_id = None
    image_processor: Any = tiny.image_processor
    image_processor.size = {"shortest_edge": IMAGE_SIDE}
    image_processor.crop_size = {"height": IMAGE_SIDE, "width": IMAGE_SIDE}
    processor = make_processor(config, tiny.tokenizer, image_processor, tiny.template)
    return LoadedModel(
        model=model, tokenizer=tiny.tokenizer, image_processor=image_processor, processor=processor,
        template=tiny.template, context_len=4096, model_id="random",
    )  # fmt: skip


def write_model(folder: Path, device: str, key_heads: int | None) -> None:
    """Write the random model as `merge` writes a tuned one, under the Hub's names of tensors."""
    copy_processor(folder)
    model: Any = random_model(device, key_heads).model
    model.config.architectures = [type(model).__name__]
    write_config(folder, model.config, model.dtype)
    write_hub_tensors(folder, model.state_dict().items(), DEFAULT_SHARD)


def make_requests(
    loaded: LoadedModel, images: int, questions: int, first: int = 0, *, decoded_only: bool = False
) -> list[Request]:
    """Make questions about images, which are preprocessed already unless they shall be `decoded_only`."""
    requests = []
    for seed, texts in questions_of_images(images, questions, first):
        given: ImageInput = image(seed) if decoded_only else loaded.processor.pixels(image(seed))
        requests += [Request(f"{seed}-{turn}", text, [given]) for turn, text in enumerate(texts)]
    return requests


def ours(loaded: LoadedModel, requests: Sequence[Request], job: dict[str, Any]) -> list[str]:
    options = {"max_new_tokens": job["tokens"], "batch_size": job["batch"]}
    texts = {
        result.question_id: result.text for result in _endless_engine(loaded).stream(requests, **options)
    }
    return [texts[request.question_id] for request in requests]


def one_at_a_time(loaded: LoadedModel, requests: Sequence[Request], job: dict[str, Any]) -> list[str]:
    """Call `generate` for every question, as the original LLaVA does (llava/eval/model_vqa.py)."""
    return [
        text for request in requests for text in _generate(loaded, [_conversation(request)], job["tokens"])
    ]


def batched(loaded: LoadedModel, requests: Sequence[Request], job: dict[str, Any]) -> list[str]:
    """Call `generate` for batches of questions, each with its image, padded on the left."""
    conversations, size = [_conversation(request) for request in requests], job["batch"]
    batches = [conversations[start : start + size] for start in range(0, len(conversations), size)]
    return [text for batch in batches for text in _generate(loaded, batch, job["tokens"])]


CONTENDERS: dict[str, Callable[..., Any]] = {
    "ours": ours,
    "ours, with preprocessing": ours,
    "one at a time": one_at_a_time,
    "batched generate": batched,
}


def _endless_engine(loaded: LoadedModel) -> Engine:
    """Return an engine whose answers all have the full number of tokens, as for the other contenders."""
    engine = Engine(loaded)
    engine.runner.stop_token_ids = frozenset()
    engine.runner.stop_strings = ()
    return engine


def _conversation(request: Request) -> Conversation:
    return [("human", f"{IMAGE_PLACEHOLDER}\n{request.text}")], list(request.images)


@torch.inference_mode()
def _generate(loaded: LoadedModel, conversations: Sequence[Conversation], tokens: int) -> list[str]:
    model: Any = loaded.model
    prompts = [loaded.processor.encode_prompt(turns) for turns, _ in conversations]
    width = max(map(len, prompts))
    pad = loaded.tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    pixels = [image for _, images in conversations for image in images if isinstance(image, Pixels)]
    inputs = loaded.processor.vision.inputs(pixels)
    inputs["pixel_values"] = inputs["pixel_values"].to(model.device, model.dtype)
    output = model.generate(
        input_ids=ids, attention_mask=mask, **inputs, do_sample=False, max_new_tokens=tokens, pad_token_id=pad
    )
    return [decode_text(loaded.tokenizer, row).strip() for row in output[:, width:].tolist()]


def second_turn(loaded: LoadedModel, contender: str) -> float:
    """Return the milliseconds from the second question about an image to the first token of its answer.

    It is the median of `CHATS` conversations. Contenders without a chat that keeps its cache read the whole
    conversation again.
    """
    rng = np.random.default_rng(7)
    milliseconds = []
    for number in range(CHATS + 1):  # the first warms up
        first, second = (question_and_answer(rng)[0] for _ in range(2))
        pixels = loaded.processor.pixels(image(500 + number))
        chat = Chat(_endless_engine(loaded).runner, max_new_tokens=16)
        chat.add_image(pixels)
        answer = "".join(chat.ask(first))
        turns, images = _conversation(Request("", first, [pixels]))
        conversation: Conversation = [*turns, ("gpt", answer), ("human", second)], images
        _synchronise(loaded)
        begin = time.perf_counter()
        if contender == "ours":
            next(chat.ask(second), None)
        else:
            _generate(loaded, [conversation], 1)
        _synchronise(loaded)
        milliseconds.append(1000 * (time.perf_counter() - begin))
    return statistics.median(milliseconds[1:])


def _synchronise(loaded: LoadedModel) -> None:
    if loaded.model.device.type == "cuda":
        torch.cuda.synchronize()


def run(job: dict[str, Any]) -> dict[str, Any]:
    if job["contender"] == "model":
        write_model(Path(job["folder"]), job["device"], job["key_heads"])
        return {}
    loaded = random_model(job["device"], job["key_heads"])
    answer = CONTENDERS[job["contender"]]
    cuda = job["device"] == "cuda"
    raw = job["contender"] == "ours, with preprocessing"
    warm_up = make_requests(loaded, 2, min(job["questions"], job["batch"]), first=900, decoded_only=raw)
    answer(loaded, warm_up, job)
    requests = make_requests(loaded, job["pictures"], job["questions"], decoded_only=raw)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    _synchronise(loaded)
    begin, cpu_begin = time.perf_counter(), time.process_time()
    texts = answer(loaded, requests, job)
    _synchronise(loaded)
    seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu_begin
    peak = torch.cuda.max_memory_allocated() if cuda else _peak_rss()
    result = {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,  # of all threads
        "texts": texts,
        "peak_mib": peak / 2**20,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "where": torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads",
    }
    if job["chat"] and not raw:
        result["second_turn_ms"] = second_turn(loaded, job["contender"])
    return result


def _peak_rss() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))

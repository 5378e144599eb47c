"""vLLM's process of benchmarks.infer_speed: `PYTHON -m benchmarks.infer_vllm JOB`, JSON in and out.

PYTHON is that of an environment with vLLM, on the CPU with its CPU build. Pictures lie decoded in memory
before the clock starts, preprocessing and tokenisation are within it, and the caches of prefixes and of
preprocessed pictures are as vLLM has them.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.train_job import CHATS, image, question_and_answer, questions_of_images

CACHE_GIB = 1  # on the CPU; a talk of 700 tokens takes some 6 MiB in float32


def run(job: dict[str, Any]) -> dict[str, Any]:
    if find_spec("vllm") is None:
        return {"absent": f"vLLM is not installed for {sys.executable}"}
    cpu = job["device"] == "cpu"
    if cpu:
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(CACHE_GIB))
        # The thread that feeds the engine sleeps while it computes: no core is kept for it.
        os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")
        if "OMP_NUM_THREADS" in os.environ:  # it would take all cores
            os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    import torch
    import vllm

    model = vllm.LLM(
        model=job["folder"],
        dtype="float32" if cpu else "bfloat16",
        max_model_len=4096,
        max_num_seqs=job["batch"],
        limit_mm_per_prompt={"image": 1},
        generation_config="vllm",
        seed=0,
    )
    answer(model, requests(model, 2, min(job["questions"], job["batch"]), first=900), job["tokens"])
    asked = requests(model, job["pictures"], job["questions"])
    begin, cpu_begin = time.perf_counter(), cpu_seconds()
    texts = answer(model, asked, job["tokens"])
    seconds, cpu_used = time.perf_counter() - begin, cpu_seconds() - cpu_begin
    result = {
        "seconds": seconds,
        "cpu_seconds": cpu_used,
        "texts": texts,
        "peak_mib": peak_mib(),  # on CUDA of its processes, too: its cache takes what the GPU has
        "vllm": vllm.__version__,
        "torch": torch.__version__,
        "transformers": version("transformers"),
    }
    if job["chat"]:
        result["second_turn_ms"] = second_turn(model)
    return result


def requests(model: Any, images: int, questions: int, first: int = 0) -> list[dict[str, Any]]:
    """Return the questions of `infer_contenders.make_requests` as vLLM's prompts."""
    asked = []
    for seed, texts in questions_of_images(images, questions, first):
        picture = image(seed)
        asked += [prompt(model, picture, [text]) for text in texts]
    return asked


def prompt(model: Any, picture: Any, turns: list[str]) -> dict[str, Any]:
    """Return one talk about `picture`: question, answer, question and so on."""
    messages = [
        {"role": ("user", "assistant")[number % 2], "content": text}
        for number, text in enumerate([f"<image>\n{turns[0]}", *turns[1:]])
    ]
    text = model.get_tokenizer().apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return {"prompt": text, "multi_modal_data": {"image": picture}}


def answer(model: Any, asked: list[dict[str, Any]], tokens: int) -> list[str]:
    from vllm import SamplingParams

    options = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
    return [found.outputs[0].text.strip() for found in model.generate(asked, options, use_tqdm=False)]


def second_turn(model: Any) -> float:
    """Return the milliseconds to a second answer's first token, as `infer_contenders.second_turn` does."""
    rng = np.random.default_rng(7)
    milliseconds = []
    for number in range(CHATS + 1):  # the first warms up
        first, second = (question_and_answer(rng)[0] for _ in range(2))
        picture = image(500 + number)
        answered = answer(model, [prompt(model, picture, [first])], 16)[0]
        talk = prompt(model, picture, [first, answered, second])
        begin = time.perf_counter()
        answer(model, [talk], 1)
        milliseconds.append(1000 * (time.perf_counter() - begin))
    return statistics.median(milliseconds[1:])


def cpu_seconds() -> float:
    """Return the processor's seconds of this process and those under it: vLLM computes in a child."""
    return sum(sum(process.cpu_times()[:2]) for process in processes())


def peak_mib() -> float:
    """Return the sum of what each process held at most."""
    lines = [
        line
        for process in processes()
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
        if line.startswith("VmHWM")
    ]
    return sum(int(line.split()[1]) for line in lines) / 1024


def processes() -> list[Any]:
    import psutil  # which vLLM needs

    this = psutil.Process()
    return [this, *this.children(recursive=True)]


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))

"""Where the time of an answer's tokens goes, by part of the model: `python -m benchmarks.infer_profile`.

The model of benchmarks/infer_speed.py answers the second question of a chat; what is profiled are the tokens
behind the first one, so that no picture and no question is read. `--device cuda` takes LLaVA-1.5-7B's shape.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.infer_contenders import random_model
from benchmarks.train_job import image, question_and_answer
from benchmarks.train_profile import Profile
from llava.inference.chat import Chat
from llava.inference.engine import Engine


def measure(device: str, tokens: int) -> dict[str, Any]:
    """Return the seconds by part, and those by the clock without and with the profiler."""
    loaded = random_model(device)
    runner = Engine(loaded).runner
    runner.stop_token_ids, runner.stop_strings = frozenset(), ()
    profile = Profile(loaded.model, cuda=device == "cuda")
    rng = np.random.default_rng(7)
    chat = Chat(runner, max_new_tokens=tokens)
    chat.add_image(loaded.processor.pixels(image(0)))
    for _ in chat.ask(question_and_answer(rng)[0]):  # kernels are chosen and loaded in the first answer
        pass

    def rest_of_an_answer(profiled: bool) -> tuple[float, dict[str, float]]:
        pieces = chat.ask(question_and_answer(rng)[0])
        next(pieces)
        if profiled:
            profile.start()
        began = time.perf_counter()
        for _ in pieces:
            pass
        seconds = time.perf_counter() - began
        return seconds, profile.stop(seconds) if profiled else {}

    plain, _ = rest_of_an_answer(False)
    seconds, parts = rest_of_an_answer(True)
    return {"tokens": tokens - 1, "seconds": plain, "seconds_profiled": seconds, "parts": parts}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--tokens", type=int, default=17, help="of the answer (%(default)s)")
    parser.add_argument("--output", type=Path, help="the figures as JSON")
    args = parser.parse_args()
    found = measure(args.device, args.tokens)
    print(f"{1000 * found['seconds'] / found['tokens']:.1f} ms a token")
    whole = sum(found["parts"].values())
    for part, seconds in found["parts"].items():
        print(f"{seconds / whole:6.1%}  {part}")
    if args.output is not None:
        args.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

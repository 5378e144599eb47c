"""Compare the speed of our engine, of one `generate` per question and of batched `generate`.

    python -m benchmarks.infer_speed --rounds 3 --output results.json
    python -m benchmarks.infer_speed --questions 8 --tokens 4
    python -m benchmarks.infer_speed --device cuda --questions 1 4 8 --tokens 4 128 --asked 256 --batch 32

Each contender answers in a process of its own, with the same random model (in float32 on the CPU: images of
576 tokens, a vision tower of 5 layers x 192, a language model of 4 layers x 256; on CUDA the shape of
LLaVA-1.5-7B in bfloat16), the same images, preprocessed before the clock starts, and the same questions.
Every answer has exactly `--tokens` tokens. Rounds alternate between contenders. On the CPU their answers must
agree, so that they are known to do the same job. Peak memory is the process's on the CPU, the GPU's on CUDA.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

CONTENDERS = ("ours", "batched generate", "one at a time")
MIN_SAME = 0.95  # of the answers, on the CPU; rounding may decide between two tokens that are as likely
Run = dict[str, Any]


def run(job: Run) -> Run:
    """Run one contender in a process; returns the job with its result, or with `failed`."""
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    if job["device"] == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    command = [sys.executable, "-m", "benchmarks.infer_contenders", json.dumps(job)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        return {**job, "failed": done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]}
    return {**job, **json.loads(done.stdout.splitlines()[-1])}


def table(results: list[Run]) -> Table:
    """Return a table with a row per case and contender: the best round, and the range of all."""
    rows = Table(box=MARKDOWN)
    for heading in ("questions a picture", "tokens an answer", "contender", "questions/s (range)"):
        rows.add_column(heading, no_wrap=True)
    for heading in (
        "ours is faster",
        "peak memory",
        "first token of a 2nd turn",
        "same answers",
    ):
        rows.add_column(heading, justify="right")
    for questions, tokens in dict.fromkeys((r["questions"], r["tokens"]) for r in results):
        case = [r for r in results if (r["questions"], r["tokens"]) == (questions, tokens)]
        rates = {
            name: sorted(rate(r) for r in case if r["contender"] == name and "seconds" in r)
            for name in CONTENDERS
        }
        for name in CONTENDERS:
            runs = [r for r in case if r["contender"] == name and "seconds" in r]
            if not any(r["contender"] == name for r in case):
                continue
            if not runs:
                rows.add_row(str(questions), str(tokens), name, "failed")
                continue
            low, high = rates[name][0], rates[name][-1]
            waits = [r["second_turn_ms"] for r in runs if "second_turn_ms" in r]
            ratio = f"{rates['ours'][-1] / high:.2f} x" if name != "ours" and rates["ours"] else ""
            rows.add_row(
                str(questions), str(tokens), name, f"{high:.2f} ({low:.2f} to {high:.2f})", ratio,
                f"{min(r['peak_mib'] for r in runs):,.0f} MiB",
                f"{min(waits):.0f} ms" if waits else "", f"{same(case, name):.0%}",
            )  # fmt: skip
    return rows


def rate(result: Run) -> float:
    """Return the questions answered per second."""
    return result["pictures"] * result["questions"] / result["seconds"]


def same(case: list[Run], contender: str) -> float:
    """Return the share of a contender's answers that equal those of one `generate` per question."""
    texts = {r["contender"]: r["texts"] for r in case if "texts" in r}
    plain = texts.get("one at a time", texts[contender])
    return sum(a == b for a, b in zip(texts[contender], plain, strict=True)) / len(plain)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--questions", type=int, nargs="+", default=[1, 4, 8], help="questions a picture")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    parser.add_argument("--tokens", type=int, nargs="+", default=[4, 64], help="of every answer")
    parser.add_argument("--asked", type=int, default=32, help="questions in all (%(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="questions at a time (%(default)s)")
    parser.add_argument("--key-heads", type=int, help="of the language model (default: as many as heads)")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--output", type=Path, help="all figures of all rounds as JSON")
    args = parser.parse_args()
    if any(args.asked % questions for questions in args.questions):
        parser.error("--asked must be a multiple of every number of --questions")
    console = Console(width=200, highlight=False)
    results: list[Run] = []
    for number in range(args.rounds):
        for questions in args.questions:
            for tokens in args.tokens:
                for contender in args.contenders:
                    job = {
                        "contender": contender, "device": args.device,
                        "questions": questions, "tokens": tokens,
                        "pictures": args.asked // questions, "batch": args.batch, "key_heads": args.key_heads,
                        "chat": questions == max(args.questions) and tokens == min(args.tokens),
                    }  # fmt: skip
                    results.append(run(job))
                    result = results[-1]
                    outcome = f"{rate(result):.2f} questions/s" if "seconds" in result else result["failed"]
                    console.print(
                        f"round {number + 1}, {questions} a picture, {tokens} tokens, {contender}: {outcome}",
                        markup=False,
                    )
    first = next((r for r in results if "where" in r), None)
    if first:
        console.print(f"{first['where']}, torch {first['torch']}, transformers {first['transformers']}")
    console.print(f"{args.asked} questions, {args.batch} at a time")
    console.print(table(results))
    if args.output:
        args.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    bad = [r for r in results if "failed" in r]
    for questions, tokens in dict.fromkeys((r["questions"], r["tokens"]) for r in results if "texts" in r):
        case = [r for r in results if (r["questions"], r["tokens"]) == (questions, tokens)]
        names = {r["contender"] for r in case if "texts" in r}
        bad += [case[0] for name in names if args.device == "cpu" and same(case, name) < MIN_SAME]
    if bad:
        console.print("NOT COMPARABLE: a contender failed or gave other answers")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

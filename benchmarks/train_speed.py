"""How fast LoRA training reads records: ours, TRL's SFTTrainer and LLaMA-Factory, side by side.

    python -m benchmarks.train_speed --questions 1 4 8 --records 64 --rounds 3 --output results.json
    python -m benchmarks.train_speed --questions 1 8 --llamafactory-python ../llamafactory/bin/python
    python -m benchmarks.train_speed --questions 8 --profile
    python -m benchmarks.train_speed --device cuda --records 512    # many steps: loaders read ahead

Each contender trains in a process of its own, on the same records in the same order, from the same weights
(random, built in code), with the same adapters, learning rate, precision and records an optimiser step. On a
CPU a small LLaVA in float32 reads pictures of 24 x 24 patches; on CUDA it is the shape of LLaVA-1.5-7B in
bfloat16. Rounds alternate between the contenders; the first steps are not counted. That all do the same job
is checked: the first loss and the last must agree (dropout is off, each loss is a mean over the step's
supervised tokens). LLaMA-Factory caps transformers below ours and needs an environment of its own:

    python -m venv ../llamafactory && ../llamafactory/bin/pip install llamafactory==0.9.5
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from benchmarks.train_job import REPO, Job, write_data

CONTENDERS: dict[str, dict[str, Any]] = {  # and what each asks of its process
    "ours": {"packing": True},
    "ours flex": {"packing": True, "attention": "flex_attention"},
    "ours unpacked": {"packing": False},
    "TRL": {"packing": False},
    "LLaMA-Factory": {"packing": True},
    "LLaMA-Factory unpacked": {"packing": False},
}
STEPS = {"TRL": "trl", "LLaMA-Factory": "llamafactory", "LLaMA-Factory unpacked": "llamafactory"}
NEEDS_CUDA = "ours flex"
TOLERANCE = {"cpu": 1e-5, "cuda": 3e-3}  # of the losses, relative: float32 and bfloat16
INSTALL_TRL = "pip install 'trl>=1.16'"
NAME_LLAMAFACTORY = "name the Python that has llamafactory 0.9.5 with --llamafactory-python"
LOG_LINES = 12

HEADER = """Every contender: LoRA rank 16 on all linear layers of the language model, tower and projector
frozen, AdamW, constant learning rate, one batch of {batch} records an optimiser step, gradient checkpointing
{checkpointing}, {workers} data loader processes, attention: {attention}; {warm} steps before the {steps}
measured ones.
Ours flex: as ours, with flex attention, which skips the blocks that the mask hides.
Ours unpacked: every record has its own picture; short records still lie end to end in a row where that is
cheaper than padding, and do not see each other.
TRL: SFTTrainer as its documentation trains a vision-language model: messages and images, max_length=None,
assistant_only_loss, the model by path in the training's dtype. It refuses packing and padding-free batches
for pictures; its LM head already computes only supervised tokens. Its default, gradient checkpointing, is
{trl_default}; Hub kernels and Liger are not used by any contender.
LLaMA-Factory: its run_exp with neat_packing, which lays records end to end, each with a picture of its own,
under a mask that keeps them apart, two to a row (all of a step's in one row under FlashAttention). It packs
within our steps' records, so that losses can be compared; <s> is added to its template.
LLaMA-Factory unpacked: the same without packing, padded to the longest record.{llamafactory}"""


class FailedRun(Exception):
    """The last lines that a contender's process wrote."""


def run(step: str, job: Job, llamafactory: Path | None = None) -> dict[str, Any]:
    """One process; what it found. FailedRun if it ended otherwise than well.

    `llamafactory` is the Python of LLaMA-Factory's environment."""
    if step == "llamafactory" and llamafactory is None:
        return {"absent": NAME_LLAMAFACTORY}
    path = job.result.with_suffix(".job")
    job.write(path)
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    if job.device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    command = [sys.executable, "-m", "benchmarks.train_contenders", step, str(path)]
    if step == "llamafactory":
        command = [str(llamafactory), "-m", "benchmarks.train_llamafactory", str(path)]
        environment["PYTHONPATH"] = str(REPO)  # this project is not installed there
    log = job.result.with_suffix(".log")
    job.result.unlink(missing_ok=True)
    with log.open("w") as out:
        code = subprocess.run(command, env=environment, stdout=out, stderr=subprocess.STDOUT).returncode
    if code or not job.result.is_file():
        lines = log.read_text(errors="replace").strip().splitlines()[-LOG_LINES:]
        raise FailedRun("\n".join([f"{step} ended with code {code}:", *lines]))
    found: dict[str, Any] = json.loads(job.result.read_text())
    return found


def measure(
    jobs: dict[int, Job],
    contenders: Sequence[str],
    rounds: int,
    console: Console,
    llamafactory: Path | None = None,
) -> list[dict[str, Any]]:
    """Every contender for every number of questions, `rounds` times in turn.

    `llamafactory` is the Python of LLaMA-Factory's environment."""
    results: list[dict[str, Any]] = []
    out_of_race: set[tuple[int, str]] = set()
    for number in range(rounds):
        for questions, job in jobs.items():
            for contender in contenders:
                if (questions, contender) in out_of_race:
                    continue
                step = STEPS.get(contender, "ours")
                entry: dict[str, Any] = {"questions": questions, "contender": contender, "round": number}
                try:
                    entry |= run(step, dataclasses.replace(job, **CONTENDERS[contender]), llamafactory)
                except FailedRun as error:
                    entry["failed"] = str(error)
                results.append(entry)
                if "seconds" in entry:
                    said = (
                        f"{entry['records'] / entry['seconds']:.2f} records/s, loss {entry['first_loss']:.6f}"
                    )
                else:
                    said = entry.get("failed") or f"absent: {entry['absent']}"
                    out_of_race.add((questions, contender))
                    if "absent" in entry:
                        same = [name for name in contenders if STEPS.get(name, "ours") == step]
                        out_of_race.update((q, name) for q in jobs for name in same)
                console.print(
                    f"round {number + 1}, {questions} a picture, {contender}: {said}",
                    highlight=False, markup=False, soft_wrap=True,
                )  # fmt: skip
    return results


def table(results: list[dict[str, Any]], peak_flops: float) -> Table:
    """A row per number of questions and contender: the best round, and the range of all."""
    out = Table(box=MARKDOWN)
    out.add_column("questions a picture")
    out.add_column("contender", no_wrap=True)
    for name in (
        "records/s (range)", "x TRL", "CPU ms/record", "tokens read/s", "supervised/s", "peak MiB",
        "of matmul peak", "first loss", "last loss",
    ):  # fmt: skip
        out.add_column(name, justify="right")
    for questions in dict.fromkeys(entry["questions"] for entry in results):
        rates = {
            contender: sorted(
                entry["records"] / entry["seconds"] for entry in chosen(results, questions, contender)
            )
            for contender in CONTENDERS
        }
        for contender in dict.fromkeys(entry["contender"] for entry in results):
            entries = chosen(results, questions, contender)
            if not entries:
                out.add_row(str(questions), contender, "no result", *[""] * 8)
                continue
            best = min(entries, key=lambda entry: entry["seconds"])
            low, high = rates[contender][0], rates[contender][-1]
            trl = rates["TRL"]
            out.add_row(
                str(questions),
                contender,
                f"{high:.2f} ({low:.2f} to {high:.2f})",
                f"{high / trl[-1]:.2f}" if trl else "",
                f"{1000 * min(entry['cpu_seconds'] for entry in entries) / best['records']:,.0f}",
                f"{best['read'] / best['seconds']:,.0f}",
                f"{best['supervised'] / best['seconds']:,.0f}",
                f"{max(entry['peak_mib'] for entry in entries):,.0f}",
                f"{best['flops'] / best['seconds'] / peak_flops:.0%}",
                f"{best['first_loss']:.5f}",
                f"{best['last_loss']:.5f}",
            )
    return out


def chosen(results: list[dict[str, Any]], questions: int, contender: str) -> list[dict[str, Any]]:
    """The finished runs of one contender."""
    return [
        entry
        for entry in results
        if entry["questions"] == questions and entry["contender"] == contender and "seconds" in entry
    ]


def problems(results: list[dict[str, Any]], device: str) -> list[str]:
    """Runs that failed, and losses or amounts of work that differ: then it was not the same job."""
    found = [entry["failed"] for entry in results if "failed" in entry]
    for questions in dict.fromkeys(entry["questions"] for entry in results):
        done = [entry for name in CONTENDERS for entry in chosen(results, questions, name)]
        for entry in done[1:]:
            for name in ("first_loss", "last_loss"):
                loss, reference = entry[name], done[0][name]
                if abs(loss - reference) > TOLERANCE[device] * abs(reference):
                    said = f"{name.replace('_', ' ')} {loss}, ours {reference}"
                    found.append(f"{questions} a picture, {entry['contender']}: {said}")
            if entry["supervised"] != done[0]["supervised"]:
                found.append(
                    f"{questions} a picture, {entry['contender']}: {entry['supervised']} supervised tokens, "
                    f"ours {done[0]['supervised']}"
                )
    return found


def profile(jobs: dict[int, Job]) -> tuple[Table, list[dict[str, Any]]]:
    """Where ours spends its time, a column per number of questions."""
    results = [
        {"questions": questions, **run("ours", dataclasses.replace(job, packing=True, profile=True))}
        for questions, job in jobs.items()
    ]
    out = Table(box=MARKDOWN)
    out.add_column("share of the step")
    for entry in results:
        out.add_column(f"{entry['questions']} a picture", justify="right")
    totals = [sum(entry["parts"].values()) for entry in results]
    for part in dict.fromkeys(part for entry in results for part in entry["parts"]):
        shares = [entry["parts"].get(part, 0.0) / total for entry, total in zip(results, totals, strict=True)]
        out.add_row(part, *(f"{share:.1%}" for share in shares))
    return out, results


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--questions", type=int, nargs="+", default=[1, 4, 8], help="questions a picture")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, help="default: all that run there")
    parser.add_argument("--records", type=int, default=64, help="records of the measured steps")
    parser.add_argument("--batch", type=int, default=16, help="records an optimiser step")
    parser.add_argument("--warm-steps", type=int, default=2, help="steps that are not measured")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--gradient-checkpointing", action="store_true", help="for all contenders")
    parser.add_argument("--workers", type=int, help="data loader processes (0 on a CPU, 4 on CUDA)")
    parser.add_argument("--profile", action="store_true", help="where ours spends its time, no comparison")
    parser.add_argument("--llamafactory-python", type=Path, help="of an environment with llamafactory 0.9.5")
    parser.add_argument("--folder", type=Path, help="keep the base model and the data here for another run")
    parser.add_argument("--output", type=Path, help="all figures of all rounds as JSON")
    args = parser.parse_args()
    for questions in args.questions:
        if args.batch % questions:
            parser.error(f"--batch {args.batch} is not a multiple of {questions} questions a picture")
    if args.records % args.batch or not args.records or args.warm_steps < 1:
        parser.error(f"--records must be a multiple of --batch {args.batch}, --warm-steps at least 1")
    if args.llamafactory_python and not args.llamafactory_python.is_file():
        parser.error(f"--llamafactory-python: there is no {args.llamafactory_python}")
    if not args.contenders:
        args.contenders = [name for name in CONTENDERS if args.device == "cuda" or name != NEEDS_CUDA]
    if "ours" not in args.contenders:
        parser.error("--contenders must name ours, whose order of the records the others follow")
    args.contenders.sort(key=list(CONTENDERS).index)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        return compare(args, folder)


def compare(args: argparse.Namespace, folder: Path) -> int:
    console = Console(width=170)
    steps = args.records // args.batch
    jobs = {}
    for questions in args.questions:
        jobs[questions] = Job(
            folder=folder,
            data=write_data(folder, questions, args.batch * (args.warm_steps + steps + 1)),
            result=folder / f"run_{questions}.json",
            order=folder / f"order_{questions}.json",
            device=args.device,
            questions=questions,
            batch=args.batch,
            warm_steps=args.warm_steps,
            steps=steps,
            packing=True,
            gradient_checkpointing=args.gradient_checkpointing,
            workers=(4 if args.device == "cuda" else 0) if args.workers is None else args.workers,
        )
        jobs[questions].order.unlink(missing_ok=True)  # of another run with --folder
    any_job = next(iter(jobs.values()))
    try:
        run("base", any_job)
        peak = run("peak", any_job)
    except FailedRun as error:
        console.print(str(error), highlight=False, markup=False)
        return 1
    console.print(
        f"{peak['device']}, {peak['peak_flops'] / 1e12:.2f} TFLOP/s in a matrix product; "
        + ", ".join(f"{name} {version}" for name, version in peak["versions"].items()),
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    found: dict[str, Any] = {"peak": peak, "settings": {k: str(v) for k, v in vars(args).items()}}
    wrong: list[str] = []
    if args.profile:
        try:
            shown, found["profile"] = profile(jobs)
        except FailedRun as error:
            console.print(str(error), highlight=False, markup=False)
            return 1
    else:
        results = found["runs"] = measure(
            jobs, args.contenders, args.rounds, console, args.llamafactory_python
        )
        console.print(header(any_job, results), highlight=False, markup=False, soft_wrap=True)
        shown = table(results, peak["peak_flops"])
        wrong = problems(results, args.device)
    console.print(shown)
    if any("absent" in entry and entry["contender"] == "TRL" for entry in found.get("runs", [])):
        console.print(f"TRL is absent: {INSTALL_TRL}", highlight=False, markup=False)
    for line in wrong:
        console.print(f"NOT COMPARABLE: {line}", highlight=False, markup=False)
    if args.output:
        args.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 1 if wrong else 0


def header(job: Job, results: list[dict[str, Any]]) -> str:
    attention = {entry["contender"]: entry["attention"] for entry in results if "attention" in entry}
    versions = next((entry["versions"] for entry in results if "versions" in entry), {})
    return HEADER.format(
        batch=job.batch,
        checkpointing="on" if job.gradient_checkpointing else "off",
        workers=job.workers,
        attention=" / ".join(f"{name} {kind}" for name, kind in attention.items()),
        warm=job.warm_steps,
        steps=job.steps,
        llamafactory="".join(f" {name} {version}," for name, version in versions.items()).rstrip(","),
        trl_default="kept" if job.gradient_checkpointing else "switched off, which is faster",
    )


if __name__ == "__main__":
    sys.exit(main())

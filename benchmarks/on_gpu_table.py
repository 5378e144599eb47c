"""A table of what `benchmarks/on_gpu.sh OUT` has found so far: `python -m benchmarks.on_gpu_table OUT`.

Writes OUT/table.md and OUT/summary.json, and prints the table. Parts that are missing or were cut are named.
The share of the peak (MFU) is what the tokens need, recomputation not counted, over what the card could do:
of its published dense bfloat16 peak, and of the best matrix product measured there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.common.errors import InputError, run_command
from llava.common.files import write_json, write_text

PART_NAMES = ("equality", "memory", "memory_4bit", "train", "infer", "extras")
TRAINING = ("train", "extras")
PUBLISHED_PEAK = 989.4e12
"""FLOP/s of an H100 and H200 (SXM) in dense bfloat16, by NVIDIA's data sheets."""
BAR_MFU, BAR_RECORDS, BAR_TRL = 0.43, 22.0, 4.0
"""NeMo AutoModel's published figures for LoRA of a model of 7B on an H100, unpacked; and our own aim at 8
questions a picture."""
NOT_MEASURED = "not measured"
Part = Mapping[str, Any]


def read_parts(out: Path) -> dict[str, Part]:
    """Read the parts that are there, by name."""
    files = {name: out / f"{name}.json" for name in PART_NAMES}
    return {name: json.loads(file.read_text()) for name, file in files.items() if file.is_file()}


def found_of(part: Part | None) -> list[Any]:
    """Return what a part's commands found, without those that found nothing."""
    return [] if part is None else [c["found"] for c in part["commands"] if c["found"] is not None]


def train_runs(parts: Mapping[str, Part]) -> Iterator[dict[str, Any]]:
    """Yield a row for each contender of each training part: its best round."""
    for name in TRAINING:
        for found in found_of(parts.get(name)):
            runs = found.get("runs", [])
            done = [run for run in runs if "seconds" in run]
            for contender in dict.fromkeys(run["contender"] for run in runs):
                rounds = [run for run in done if run["contender"] == contender]
                row: dict[str, Any] = {"part": name, "contender": contender}
                if rounds:
                    best = min(rounds, key=lambda run: run["seconds"] / run["records"])
                    flops = best["flops"] / best["seconds"]
                    row |= {
                        "questions": best["questions"],
                        "records_s": best["records"] / best["seconds"],
                        "mfu": flops / PUBLISHED_PEAK,
                        "of_matmul": flops / found["peak"]["peak_flops"],
                        "peak_gib": best["peak_mib"] / 1024,
                        "first_loss": best["first_loss"],
                        "last_loss": best["last_loss"],
                    }
                else:
                    one = next(run for run in runs if run["contender"] == contender)
                    row |= {"questions": one["questions"], "why": one.get("failed") or one.get("absent")}
                yield row


def rate(rows: Sequence[Mapping[str, Any]], questions: int, *contenders: str) -> float | None:
    """Return the most records a second of these contenders, None if none was measured."""
    rates = [
        row["records_s"]
        for row in rows
        if row["questions"] == questions
        and row["contender"] in contenders
        and "records_s" in row
        and row["part"] != "extras"  # of one step, beside LLaMA-Factory
    ]
    return max(rates, default=None)


def bars(parts: Mapping[str, Part]) -> list[dict[str, Any]]:
    """Hold what was found against the bars; `met` is None where it was not measured on a GPU."""
    rows = list(train_runs(parts)) if on_gpu(parts) else []
    unpacked = [r for r in rows if r["questions"] == 1 and r["contender"] == "ours unpacked" and "mfu" in r]
    ours, trl = rate(rows, 8, "ours", "ours flex"), rate(rows, 8, "TRL")
    checks = [check for found in found_of(parts.get("equality")) for check in found["checks"]]
    bad = [check["name"] for check in checks if not check.get("passed", True)]
    skipped = [check["name"] for check in checks if "skipped" in check]

    def bar(what: str, least: float, found: float | None) -> dict[str, Any]:
        return {"what": what, "bar": least, "found": found, "met": None if found is None else found >= least}

    return [
        {"what": "equal to float32 on the CPU", "bar": "every check", "found": ", ".join(bad) or "all passed",
         "met": not bad and not skipped} if checks and on_gpu(parts)
        else {"what": "equal to float32 on the CPU", "bar": "every check", "found": None, "met": None},
        bar("MFU of ours unpacked, 1 question a picture", BAR_MFU, unpacked[0]["mfu"] if unpacked else None),
        bar("records/s of ours unpacked, 1 question", BAR_RECORDS, rate(rows, 1, "ours unpacked")),
        bar("times TRL at 8 questions a picture", BAR_TRL, ours / trl if ours and trl else None),
    ]  # fmt: skip


def on_gpu(parts: Mapping[str, Part]) -> bool:
    """Tell whether the parts were measured on a GPU: their commands say so."""
    return any("--device cuda" in c["command"] for part in parts.values() for c in part["commands"])


def device_of(parts: Mapping[str, Part]) -> str:
    """Return the card and the versions, as the first part that knows them says."""
    for name in TRAINING:
        for found in found_of(parts.get(name)):
            if "peak" in found:
                peak = found["peak"]
                versions = ", ".join(f"{key} {value}" for key, value in peak["versions"].items())
                return f"{peak['device']}, {peak['peak_flops'] / 1e12:.1f} TFLOP/s measured; {versions}"
    return "device not known: no part that measures it is there"


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return [NOT_MEASURED + ".", ""]
    lines = [f"| {' | '.join(headings)} |", f"|{'---|' * len(headings)}"]
    return [*lines, *(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows), ""]


def equality_rows(parts: Mapping[str, Part]) -> list[list[str]]:
    rows = []
    for found in found_of(parts.get("equality")):
        for check in found["checks"]:
            if "skipped" in check:
                verdict, difference = f"not done: {check['skipped']}", ""
            elif "failed" in check:
                verdict, difference = f"FAILED: {one_line(check['failed'])}", ""
            else:
                verdict = "passed" if check["passed"] else "NOT EQUAL"
                difference = f"{check['difference']:.2g}"
            rows.append([check["name"], difference, f"{check['tolerance']:g}", verdict])
    return rows


def training_rows(parts: Mapping[str, Part]) -> list[list[str]]:
    rows = list(train_runs(parts))
    cells = []
    for row in rows:
        again = " (once more)" if row["part"] == "extras" and row["contender"] == "ours" else ""
        start = [str(row["questions"]), row["contender"] + again]
        if "records_s" not in row:
            cells.append([*start, one_line(row["why"] or "no result"), *[""] * 6])
            continue
        trl = rate(rows, row["questions"], "TRL")
        cells.append(
            [
                *start, f"{row['records_s']:.2f}", f"{row['records_s'] / trl:.2f}" if trl else "",
                f"{row['mfu']:.1%}", f"{row['of_matmul']:.0%}", f"{row['peak_gib']:.1f}",
                f"{row['first_loss']:.4f}", f"{row['last_loss']:.4f}",
            ]
        )  # fmt: skip
    return cells


def answering_rows(parts: Mapping[str, Part]) -> list[list[str]]:
    rows = []
    for results in found_of(parts.get("infer")):
        ours = {
            (run["questions"], run["tokens"]): per_second(run)
            for run in results
            if run["contender"] == "ours" and "seconds" in run
        }
        for run in results:
            case = (run["questions"], run["tokens"])
            start = [str(case[0]), str(case[1]), run["contender"]]
            if "seconds" not in run:
                rows.append([*start, one_line(str(run.get("failed") or run.get("absent"))), "", "", ""])
                continue
            times = f"{ours[case] / per_second(run):.2f}" if case in ours else ""
            turn = f"{run['second_turn_ms']:.0f}" if "second_turn_ms" in run else ""
            rows.append([*start, f"{per_second(run):.2f}", times, turn, f"{run['peak_mib'] / 1024:.1f}"])
    return rows


def per_second(run: Mapping[str, Any]) -> float:
    """Return the questions answered a second."""
    return float(run["pictures"] * run["questions"] / run["seconds"])


def memory_rows(parts: Mapping[str, Part]) -> list[list[str]]:
    rows = []
    for found in [*found_of(parts.get("memory")), *found_of(parts.get("memory_4bit"))]:
        for entry in found["configs"]:
            if "failed" in entry:
                rows.append([entry["config"], f"failed: {one_line(entry['failed'])}", "", "", "", ""])
                continue
            estimated, measured = entry["estimated"], entry["measured"]
            reserved = f"{entry['reserved'] / 1e9:.2f}" if "reserved" in entry else ""
            rows.append(
                [
                    entry["config"], f"{estimated / 1e9:.2f}", f"{measured / 1e9:.2f}",
                    f"{estimated / measured:.2f}", reserved, entry["batch"],
                ]
            )  # fmt: skip
    return rows


def profile_rows(parts: Mapping[str, Part]) -> list[list[str]]:
    """Return the shares of a training step and of an answer's tokens, by part of the model."""
    columns: list[Mapping[str, float]] = [{}, {}]
    for found in found_of(parts.get("extras")):
        if "profile" in found:
            columns[0] = found["profile"][0]["parts"]
        elif "parts" in found:
            columns[1] = found["parts"]
    sums = [sum(column.values()) or 1.0 for column in columns]
    names = dict.fromkeys(name for column in columns for name in column)
    return [
        [
            name,
            *(f"{c[name] / s:.1%}" if name in c else "" for c, s in zip(columns, sums, strict=True)),
        ]
        for name in names
    ]


def one_line(text: str) -> str:
    lines = [line for line in str(text).splitlines() if line.strip()]
    return lines[-1].strip()[:160] if lines else ""


def text_of(parts: Mapping[str, Part]) -> str:
    """Return the table as Markdown."""
    lines = ["# What was measured on a GPU" if on_gpu(parts) else "# A rehearsal on a CPU", ""]
    lines += [device_of(parts), ""]
    rows = [
        [name, part["status"], f"{part['seconds']:.0f}", str(part["planned"]), str(part["limit"])]
        for name, part in parts.items()
    ]
    rows += [[name, "MISSING", "", "", ""] for name in PART_NAMES if name not in parts]
    lines += markdown(["part", "state", "seconds", "planned", "limit"], rows)
    lines += ["## Bars", ""]
    shown = [
        [
            bar["what"], str(bar["bar"]),
            NOT_MEASURED if bar["found"] is None else
            f"{bar['found']:.3g}" if isinstance(bar["found"], float) else bar["found"],
            "" if bar["met"] is None else "met" if bar["met"] else "NOT MET",
        ]
        for bar in bars(parts)
    ]  # fmt: skip
    lines += markdown(["what", "at least", "found", ""], shown)
    lines += [
        "43% MFU and 22 records/s are NeMo AutoModel's published figures for LoRA of a model of 7B on an "
        "H100, unpacked; its records are not these, so that MFU compares and records/s only roughly.", "",
    ]  # fmt: skip
    lines += ["## Equal to float32 on the CPU", ""]
    lines += markdown(["check", "differs by", "allowed", ""], equality_rows(parts))
    lines += ["## Training", ""]
    headings = ["questions a picture", "contender", "records/s", "x TRL", "MFU of 989.4 TFLOP/s",
                "of matmul peak", "peak GiB", "first loss", "last loss"]  # fmt: skip
    lines += markdown(headings, training_rows(parts))
    lines += ["## Answering", ""]
    headings = ["questions a picture", "tokens an answer", "contender", "questions/s", "ours is faster",
                "first token of a 2nd turn, ms", "peak GiB"]  # fmt: skip
    lines += markdown(headings, answering_rows(parts))
    lines += ["## Memory", ""]
    headings = ["config", "estimated GB", "measured GB", "ratio", "reserved GB", "largest batch"]
    lines += markdown(headings, memory_rows(parts))
    lines += ["## Where the time goes", ""]
    lines += markdown(["part", "a training step", "tokens of an answer"], profile_rows(parts))
    for name, part in parts.items():
        if part["status"] != "done":
            lines += [f"## Last lines of {name} ({part['status']})", "", "```", *part["log"][-12:], "```", ""]
    return "\n".join(lines)


def write(out: Path) -> str:
    """Write OUT/table.md and OUT/summary.json; return the table."""
    parts = read_parts(out)
    if not parts:
        raise InputError(f"{out}: no part is there ({', '.join(PART_NAMES)}); run benchmarks/on_gpu.sh {out}")
    text = text_of(parts)
    write_text(out / "table.md", text)
    summary = {
        "device": device_of(parts),
        "on_gpu": on_gpu(parts),
        "parts": {name: parts[name]["status"] if name in parts else "missing" for name in PART_NAMES},
        "bars": bars(parts),
        "training": list(train_runs(parts)),
    }
    write_json(out / "summary.json", summary)
    return text


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT")
    print(write(parser.parse_args(argv).out))
    return 0


if __name__ == "__main__":
    run_command(main)

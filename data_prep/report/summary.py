"""Summarise a conversion: its counts and notes, in manifest.json and on the console."""

from __future__ import annotations

import argparse
import hashlib
import platform
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import PIL
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data_prep.images.units import Unit
from data_prep.questions.records import QuestionAnswer
from data_prep.source_folder import SPLITS, Split
from data_prep.splits.assign import Conversion
from data_prep.splits.checks import checks_text
from data_prep.splits.groups import Leaks
from llava.common.cli import command_name, print_next
from llava.common.files import sha256
from llava.common.html.markup import readable
from llava.common.shipped import CONFIGS, DEFAULT_CONFIG

SHOWN_GROUPS = 12  # of warnings


@dataclass(frozen=True)
class SplitSummary:
    """The counts of one split, as the manifest, the table and the report show them."""

    pictures: int
    groups: int
    labels: dict[str, int]
    questions: int
    tasks: dict[str, dict[str, Any]]


def summarise_split(
    units: Sequence[Unit], items: Sequence[QuestionAnswer], group_of: Mapping[str, str]
) -> SplitSummary:
    """Count the units, groups, labels and questions of one split."""
    tasks: dict[str, dict[str, Any]] = {}
    for item in items:
        task = tasks.setdefault(item.task, {"type": item.type, "questions": 0, "yes": 0})
        task["questions"] += 1
        task["yes"] += item.type == "yesno" and item.yes
    for task in tasks.values():
        yes = task.pop("yes")
        if task["type"] == "yesno":
            task["yes_share"] = round(yes / task["questions"], 3)
    return SplitSummary(
        pictures=len(units),
        groups=len({group_of[unit.image] for unit in units}),
        labels=dict(sorted(Counter(unit.label for unit in units).items())),
        questions=len(items),
        tasks=dict(sorted(tasks.items())),
    )


# --- manifest.json --------------------------------------------------------------------------------------


def make_manifest(
    args: argparse.Namespace, conversion: Conversion, summaries: Mapping[Split, SplitSummary], folder: Path
) -> dict[str, Any]:
    """Return all that the files in `folder` were made of and with.

    Args:
        args: The arguments of `convert`.
        conversion: The units by split, and what was left out.
        summaries: The counts of each split.
        folder: Holds the written files.
    """
    try:
        ours = version("llava-inspect")
    except PackageNotFoundError:
        ours = "unknown"
    recipe = conversion.recipe.model_dump(mode="json")
    return {
        "schema": 1,
        "source": str(args.source),
        "test_source": str(args.test_source) if args.test_source else None,
        "seed": args.seed,
        "recipe_file": readable(str(args.recipe)),
        "recipe": recipe,
        "versions": {
            "llava-inspect": ours,
            "pillow": PIL.__version__,
            "python": platform.python_version(),
        },
        "splits": {split: vars(summary) for split, summary in summaries.items()},
        "leaks": conversion.leaks and vars(conversion.leaks),
        "looked_for": {check.name: check.images for check in conversion.checks if not check.not_checked},
        "not_looked_for": {check.name: check.not_checked for check in conversion.checks if check.not_checked},
        "left_out": dict(sorted(conversion.left_out.items())),
        "changes": dict(sorted(conversion.changes.items())),
        "warnings": conversion.notes,
        "pictures": {
            unit.image: {
                "split": split,
                "source": unit.source,
                "group": conversion.group_of[unit.image],
                **({} if conversion.recipe.unit == "picture" else {"crop": unit.crop}),
                **({} if unit.origin is None else {"synthetic": unit.origin.method}),
            }
            for split in SPLITS
            for unit in sorted(conversion.units[split], key=lambda unit: unit.image)
        },
        "sha256": {path.name: sha256(path) for path in sorted(folder.glob("*.json*"))}
        | {"images": _hash_of_names(conversion.group_of)},
    }


def _hash_of_names(images: Mapping[str, str]) -> str:
    """Return a hash of the image names; images are named by their content."""
    return hashlib.sha256("\n".join(sorted(images)).encode()).hexdigest()


# --- the console ----------------------------------------------------------------------------------------


def print_summary(
    console: Console, output: Path, conversion: Conversion, summaries: Mapping[Split, SplitSummary]
) -> None:
    """Print what was made. Similar notes are shown once; manifest.json has them all."""

    def print_line(text: str) -> None:
        console.print(readable(text), markup=False, emoji=False, highlight=False, soft_wrap=True)

    console.print(_table(output, summaries))
    if made := made_line(conversion.units["train"]):
        print_line(f"made pictures in train: {made}")
    print_line(checks_text(conversion.checks))
    if conversion.leaks and conversion.leaks.akin:
        print_line(_leaks_text(conversion.leaks))
    for line in change_lines(conversion):
        print_line(f"changed: {line}")
    for line in left_out_lines(conversion):
        print_line(line)
    groups = group_similar(conversion.notes)
    for notes in groups[:SHOWN_GROUPS]:
        more = f" (and {len(notes) - 1:,} more like this)" if len(notes) > 1 else ""
        print_line(f"warning: {notes[0]}{more}")
    if len(groups) > SHOWN_GROUPS:
        print_line(f"... and {len(groups) - SHOWN_GROUPS} more kinds of warning")
    if len(conversion.notes) > min(len(groups), SHOWN_GROUPS):
        print_line(f"all {len(conversion.notes):,} warnings: {output / 'manifest.json'}")
    print_line(f"look at: {output / 'report.html'}")
    val = output / "val.json" if summaries["val"].questions else "null"
    print_next(
        f"{command_name('train', 'scripts/finetune_lora.sh')} {CONFIGS / DEFAULT_CONFIG}.yaml "
        f"data_path={output / 'train.json'} "
        f"val_path={val} image_folder={output} output_dir=runs/{output.name}_lora"
    )


def made_line(units: Sequence[Unit]) -> str:
    """Return how many of some units were made, by which methods and of which kinds; "" if none were."""
    origins = [unit.origin for unit in units if unit.origin]
    if not origins:
        return ""
    methods = Counter(f"by {origin.method}" for origin in origins)
    kinds = Counter(origin.kind or "new background" for origin in origins)
    told = (f"{count:,} {what}" for what, count in (*sorted(methods.items()), *sorted(kinds.items())))
    return f"{len(origins):,} of {len(units):,} ({len(origins) / len(units):.0%}): {', '.join(told)}"


def change_lines(conversion: Conversion) -> list[str]:
    """Return a line for each change made to source images before they were cut."""
    return [
        f"{change}: {len(keys):,} source picture(s), for instance {keys[0]}"
        for change, keys in sorted(conversion.changes.items())
    ]


def left_out_lines(conversion: Conversion) -> list[str]:
    """Return a line for each reason: `not asked: 3 x kind (several kinds)` for the reason `kind: several
    kinds`, `left out: 3 crops ...` for one without a colon."""
    lines = []
    for reason, count in sorted(conversion.left_out.items()):
        what, _, why = reason.partition(": ")
        lines.append(f"not asked: {count:,} x {what} ({why})" if why else f"left out: {count:,} {what}")
    return sorted(lines)


def group_similar(notes: Iterable[str]) -> list[list[str]]:
    """Group notes that say the same of different files, objects or numbers, in order of first occurrence.

    Two notes are similar if they are equal without their beginning up to the first `: ` (the file), without
    what stands in quotes or brackets and without words that hold a digit, a slash or a dot.
    """
    groups: dict[str, list[str]] = {}
    for note in notes:
        message = note.partition(": ")[2] or note
        groups.setdefault(re.sub(r"'[^']*'|\(.*?\)+|\S*[\d/\\.]\S*", "", message), []).append(note)
    return list(groups.values())


def _leaks_text(leaks: Leaks) -> str:
    text = (
        f"{leaks.akin:,} pair(s) of pictures are in one group and so in one split; a random split by picture "
        f"would put {leaks.random_akin:,g} in two (expected)"
    )
    if leaks.given_akin is not None:
        text += f", the source's own splits put {leaks.given_akin:,} there"
    return text


def _table(output: Path, summaries: Mapping[Split, SplitSummary]) -> Table:
    table = Table(title=escape(readable(str(output))))
    table.add_column()
    for split in summaries:
        table.add_column(split, justify="right")
        table.add_column("yes", justify="right")

    def row(name: str, values: Sequence[object], yes: Sequence[str] = (), last: bool = False) -> None:
        cells = [[str(value), share] for value, share in zip(values, yes or [""] * len(values), strict=True)]
        table.add_row(escape(name), *(text for cell in cells for text in cell), end_section=last)

    parts = list(summaries.values())
    row("groups", [part.groups for part in parts])
    row("pictures", [part.pictures for part in parts], last=True)
    for label in sorted({label for part in parts for label in part.labels}):
        row(f"  showing {label}", [part.labels.get(label, 0) for part in parts])
    table.add_section()
    row("questions", [part.questions for part in parts], last=True)
    for task in sorted({task for part in parts for task in part.tasks}):
        counts = [part.tasks.get(task, {"questions": 0}) for part in parts]
        shares = [f"{count['yes_share']:.0%}" if "yes_share" in count else "" for count in counts]
        row(f"  {task}", [count["questions"] for count in counts], shares)
    return table

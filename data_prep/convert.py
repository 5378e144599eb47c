"""`python -m data_prep convert`: annotated photos -> conversation JSON, test questions and their truth.

Reads everything first and writes nothing if anything is wrong; the output folder appears whole or not at
all. The same source, recipe and seed give the same bytes, whatever the number of workers. Over an earlier
output (--overwrite) only what changed is made and written again; a second run with the same input leaves
every file as it is.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import PIL
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from data_prep.annotations import SPLITS, AnnotatedPicture, Folder, Source, Split
from data_prep.blend import add_blend_options, blend, find_general
from data_prep.formats import AUTO, READERS, find_reader
from data_prep.items import Item, to_dialogue, to_question, to_record, to_truth
from data_prep.output import output_folder
from data_prep.pictures import Prepared, Unit, check_names, prepare
from data_prep.questions import ask, dialogues
from data_prep.recipe import Recipe, Shares
from data_prep.report_convert import conversion_report
from data_prep.report_page import page
from data_prep.splits import (
    Leaks,
    Member,
    assign_splits,
    count_leaks,
    find_groups,
    given_splits,
    scaled_shares,
)
from data_prep.store import Known, PictureStore
from llava.errors import InputError
from llava.files import sha256, write_json, write_jsonl, write_text
from llava.settings import load_settings

EXAMPLE = """examples:
  python -m data_prep convert --source photos --recipe configs/recipes/insulator.yaml --output data/mine
  python -m data_prep convert --source photos --test-source more_photos \\
      --recipe configs/recipes/insulator.yaml --output data/mine splits.val=0.1 families.describe=null

Any field of the recipe can be overridden as key=value; data_prep/recipe.py says what each means.
"""
SHOWN_NOTES = 12


@dataclass
class Conversion:
    """What was read, cut, grouped and split, ready to be asked about."""

    recipe: Recipe
    units: dict[Split, list[Unit]] = field(default_factory=dict)
    group_of: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    # What was done to source pictures before they were cut: a phrase -> the keys of the pictures.
    changes: dict[str, list[str]] = field(default_factory=dict)
    leaks: Leaks | None = None


@dataclass(frozen=True)
class SplitSummary:
    """The counts of one split, as the manifest and the table show them."""

    pictures: int
    groups: int
    labels: dict[str, int]
    questions: int
    tasks: dict[str, dict[str, Any]]


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse(argv)
    recipe = load_settings(Recipe, args.recipe, args.overrides)
    if args.splits is not None:
        shares = args.splits.model_copy(update={"given": recipe.splits.given})
        recipe = recipe.model_copy(update={"splits": shares})
    _check_output(args.output, args.source, args.test_source, overwrite=args.overwrite)

    roots = [args.source, *([args.test_source] if args.test_source else [])]
    folders = [Folder.scan(root, args.image_folder) for root in roots]
    sources = read_sources(folders, recipe, args.format)
    general = find_general(args)
    with output_folder(args.output) as folder:
        store = PictureStore(folder, recipe.pictures, args.output if args.output.exists() else None)
        prepared = prepare_all(sources, recipe, store, args.workers)
        conversion = split_units(prepared, recipe, args.seed, source_notes(sources))
        summaries = write_questions(conversion, folder, args.seed)
        _drop_unused_pictures(folder, conversion)
        blended = blend(general, folder, recipe, store, args.seed, args.workers) if general else None
        manifest = _manifest(args, conversion, summaries, folder) | {"blend": blended}
        write_json(folder / "manifest.json", manifest)
        write_text(folder / "report.html", page(conversion_report(folder, conversion, sources, prepared)))
    _report(Console(), args.output, conversion, summaries)
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep convert",
        description="Turn photos annotated as Pascal VOC into LLaVA conversation JSON (train, val, test), a "
        "question file and a truth file, as a recipe says.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--source",
        type=Path,
        required=True,
        metavar="DIR",
        help="pictures and annotation files, anywhere below it",
    )
    parser.add_argument(
        "--test-source",
        type=Path,
        metavar="DIR",
        help="a second folder that makes the whole test split; SOURCE is then split into train and val only",
    )
    parser.add_argument(
        "--format",
        choices=[AUTO, *READERS],
        default=AUTO,
        help="of the annotations (default: auto, which says what it found)",
    )
    parser.add_argument(
        "--image-folder", type=Path, metavar="DIR", help="where the pictures are, if not below SOURCE"
    )
    parser.add_argument("--recipe", type=Path, required=True, metavar="FILE.yaml")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="must not exist yet")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="bring an earlier conversion in OUTPUT up to date; what stays the same is not written again",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of splits and wordings (default: 0)"
    )
    parser.add_argument(
        "--splits",
        type=_shares,
        metavar="TRAIN,VAL,TEST",
        help="for instance 0.7,0.15,0.15 (default: recipe)",
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="threads (default: one a core)"
    )
    add_blend_options(parser)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="override a field of the recipe")
    args = parser.parse_intermixed_args(argv)
    if args.workers < 1:
        raise InputError(f"--workers {args.workers}: must be 1 or more")
    return args


def _shares(text: str) -> Shares:
    try:
        train, val, test = (float(part) for part in text.split(","))
        return Shares(train=train, val=val, test=test)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: write three shares such as 0.7,0.15,0.15") from None


def _check_output(output: Path, source: Path, test_source: Path | None, *, overwrite: bool) -> None:
    for folder in (source, *([test_source] if test_source else [])):
        if not folder.is_dir():
            raise InputError(
                f"{folder}: {'a file; name its folder' if folder.exists() else 'no such folder'}"
            )
        inner, outer = output.resolve(), folder.resolve()
        if inner.is_relative_to(outer) or outer.is_relative_to(inner):
            raise InputError(f"--output {output} and {folder} lie one inside the other; name a folder apart")
    if test_source and test_source.resolve() == source.resolve():
        raise InputError("--source and --test-source are the same folder; the test would be on training data")
    if output.exists() and not overwrite:
        raise InputError(f"{output} exists already; name another folder or add --overwrite")
    if output.exists() and not (output / "manifest.json").is_file():
        raise InputError(f"{output} is not an earlier conversion (no manifest.json); remove it yourself")


def read_sources(folders: Sequence[Folder], recipe: Recipe, format: str) -> list[Source]:
    """Read every annotation; InputError if any is unreadable (all of them are listed on stderr first)."""
    problems: list[str] = []
    sources = []
    for folder in folders:
        reader, why = find_reader(folder, format)
        print(f"{folder.root}: format {reader.NAME} ({why})")
        source, found = reader.read(folder)
        problems += found
        sources.append(source)
    _raise_problems(problems, "annotation file(s) cannot be used")
    names = recipe.known_names()
    for source in sources:
        check_names(source.pictures, recipe, names)
    return sources


def _raise_problems(problems: Sequence[str], what: str) -> None:
    """One problem is the error itself; several are listed, a line each, before a line that sums them up."""
    if len(problems) == 1:
        raise InputError(problems[0])
    if problems:
        for problem in problems:
            print(f"problem: {problem}", file=sys.stderr)
        raise InputError(f"{len(problems)} {what} (listed above); nothing was written")


def source_notes(sources: Sequence[Source]) -> list[str]:
    """What the readers passed over or put right."""
    notes = [note for source in sources for note in source.notes]
    for source in sources:
        if alone := source.unannotated:
            notes.append(f"{len(alone)} picture(s) without annotation left out, for instance {alone[0]}")
    return notes


def prepare_all(
    sources: Sequence[Source], recipe: Recipe, store: PictureStore, workers: int
) -> list[list[Prepared]]:
    """Decode, cut and encode every picture that `store` does not know in `workers` threads, and write the
    units.

    Returns the pictures of each source. InputError if any picture is damaged, after all were tried.
    """
    names = recipe.known_names()
    jobs = [(number, picture) for number, source in enumerate(sources) for picture in source.pictures]

    def work(job: tuple[int, AnnotatedPicture]) -> Prepared | str:
        try:
            return prepare(job[1], recipe, names, store)
        except InputError as error:
            return str(error)

    prepared: list[list[Prepared]] = [[] for _ in sources]
    problems: list[str] = []
    # Threads: Pillow decodes, scales and encodes outside Python's lock.
    pool = ThreadPoolExecutor(workers)
    try:
        results = track(
            pool.map(work, jobs), "pictures", len(jobs), console=Console(stderr=True), transient=True
        )
        for (number, _), result in zip(jobs, results, strict=True):
            if isinstance(result, str):
                problems.append(result)
            else:
                prepared[number].append(result)
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupted run does not first finish its pictures
    _raise_problems(problems, "picture(s) cannot be used")
    store.write_cache(_known(item for items in prepared for item in items))
    return prepared


def _known(prepared: Iterable[Prepared]) -> dict[str, Known]:
    """What is known of each source file, by its digest. Two pictures may be one file, cut differently."""
    known: dict[str, Known] = {}
    for item in prepared:
        earlier = known.setdefault(item.digest, item.known)
        if earlier is not item.known:
            earlier.parts.update(item.known.parts)
    return known


def split_units(
    prepared: Sequence[Sequence[Prepared]], recipe: Recipe, seed: int, notes: Sequence[str] = ()
) -> Conversion:
    """Group the pictures and assign the splits. `prepared` is [source] or [source, test source].

    A picture that is there twice is kept once, a training picture akin to one of the test source is left
    out: both would inflate the test's score. So is, with `splits.given: keep`, a picture akin to one that the
    source holds out further.
    """
    conversion = Conversion(recipe, {split: [] for split in SPLITS}, notes=list(notes))
    # The test source comes first, so that it keeps what both hold.
    tagged = [(number, item) for number in reversed(range(len(prepared))) for item in prepared[number]]
    for _, item in tagged:
        conversion.notes.extend(item.notes)
        conversion.left_out.update(item.left_out)
        for change in item.changes:
            conversion.changes.setdefault(change, []).append(item.key)
    members = [Member(item.key, item.fingerprint, number, item.group, item.split) for number, item in tagged]
    groups = find_groups(members, recipe.group)
    shares = scaled_shares(recipe.splits, without_test=len(prepared) == 2)
    conversion.leaks = count_leaks(members, groups, recipe.group, shares)

    held_out = _held_out(tagged, recipe, test_source=len(prepared) == 2)
    fixed = given_splits(held_out, groups)
    units: dict[str, list[Unit]] = {}
    seen: dict[str, Unit] = {}
    for (_, item), group, said in zip(tagged, groups, held_out, strict=True):
        if fixed.get(group, said) != said and (said or len(prepared) == 2):
            reason = f"{said or 'training'} pictures akin to a {fixed[group]} picture"
            conversion.left_out[reason] += 1
            conversion.notes.append(f"{item.key}: left out, akin to a {fixed[group]} picture of the source")
            continue
        for unit in item.units:
            if (first := seen.setdefault(unit.image, unit)) is not unit:
                differs = "" if first.defects == unit.defects else ", annotated differently"
                conversion.left_out["copies of another picture"] += 1
                conversion.notes.append(f"{unit.key}: left out, the same picture as {first.key}{differs}")
                continue
            units.setdefault(group, []).append(unit)
            conversion.group_of[unit.image] = group

    free = {group: [unit.label for unit in cut] for group, cut in units.items() if group not in fixed}
    splits = fixed | assign_splits(free, shares, seed)
    for group, cut in units.items():
        conversion.units[splits[group]].extend(cut)
    for split in SPLITS:
        if not conversion.units[split] and (split == "train" or shares[split] > 0):
            if recipe.splits.given == "keep":
                raise InputError(
                    f"nothing is left for {split}: the source's own splits have none; "
                    f"set splits.{split}=0 or splits.given=ignore"
                )
            raise InputError(
                f"nothing is left for {split}: {len(units)} group(s) of pictures are too few to split"
            )
    return conversion


def _held_out(
    tagged: Sequence[tuple[int, Prepared]], recipe: Recipe, *, test_source: bool
) -> list[Split | None]:
    """The split that each (number of its source, picture) must be in, None where that is open."""
    if recipe.splits.given == "ignore":
        return ["test" if number else None for number, _ in tagged]
    if test_source:
        raise InputError("--test-source and splits.given=keep both say what the test pictures are; use one")
    if not any(item.split for _, item in tagged):
        raise InputError("splits.given=keep, but the source states no splits; leave it out")
    return [item.split for _, item in tagged]


def write_questions(conversion: Conversion, folder: Path, seed: int) -> dict[Split, SplitSummary]:
    """Ask, and write train.json, val.json, test.json, questions_test.jsonl and truth_test.jsonl."""
    recipe, group_of = conversion.recipe, conversion.group_of
    summaries: dict[Split, SplitSummary] = {}
    for split in SPLITS:
        items, skipped = ask(conversion.units[split], recipe, split, seed)
        conversion.left_out.update(skipped)
        summaries[split] = _summary(conversion.units[split], items, group_of)
        if split == "train" and not items:
            raise InputError("the recipe asks nothing of the training pictures; look at its families")
        records = [to_record(item, recipe, group_of[item.unit.image]) for item in items]
        if split == "train":
            talks = dialogues(items, recipe, seed)
            records += [to_dialogue(talk, recipe, group_of[talk[0].unit.image]) for talk in talks]
        write_json(folder / f"{split}.json", records)
        if split == "test":
            write_jsonl(folder / "questions_test.jsonl", (to_question(item, recipe) for item in items))
            write_jsonl(
                folder / "truth_test.jsonl",
                (to_truth(item, recipe, group_of[item.unit.image]) for item in items),
            )
    return summaries


def _summary(units: Sequence[Unit], items: Sequence[Item], group_of: Mapping[str, str]) -> SplitSummary:
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


def _drop_unused_pictures(folder: Path, conversion: Conversion) -> None:
    """Pictures that were encoded and then left out (copies have the name of what was kept)."""
    used = {Path(name).name for name in conversion.group_of}
    for path in (folder / "images").iterdir():
        if path.name not in used:
            path.unlink()


def _manifest(
    args: argparse.Namespace, conversion: Conversion, summaries: Mapping[Split, SplitSummary], folder: Path
) -> dict[str, Any]:
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
        "recipe_file": str(args.recipe),
        "recipe": recipe,
        "versions": {
            "llava-inspect": ours,
            "pillow": PIL.__version__,
            "python": platform.python_version(),
        },
        "splits": {split: vars(summary) for split, summary in summaries.items()},
        "leaks": conversion.leaks and vars(conversion.leaks),
        "left_out": dict(sorted(conversion.left_out.items())),
        "changes": dict(sorted(conversion.changes.items())),
        "warnings": conversion.notes,
        "pictures": {
            unit.image: {
                "split": split,
                "source": unit.source,
                "group": conversion.group_of[unit.image],
                **({} if conversion.recipe.unit == "picture" else {"crop": unit.crop}),
            }
            for split in SPLITS
            for unit in sorted(conversion.units[split], key=lambda unit: unit.image)
        },
        "sha256": {path.name: sha256(path) for path in sorted(folder.glob("*.json*"))}
        | {"images": _hash_of_names(conversion.group_of)},
    }


def _hash_of_names(images: Mapping[str, str]) -> str:
    """Pictures are named by their content, so their names stand for it."""
    return hashlib.sha256("\n".join(sorted(images)).encode()).hexdigest()


def _report(
    console: Console, output: Path, conversion: Conversion, summaries: Mapping[Split, SplitSummary]
) -> None:
    console.print(_table(output, summaries))
    if conversion.leaks:
        console.print(escape(_leaks_text(conversion.leaks)), highlight=False, soft_wrap=True)
    for change, keys in sorted(conversion.changes.items()):
        console.print(f"{len(keys)} source picture(s): {escape(change)}", highlight=False)
    for reason, count in sorted(conversion.left_out.items()):
        console.print(f"left out: {count} {escape(reason)}", highlight=False)
    for note in conversion.notes[:SHOWN_NOTES]:
        console.print(f"warning: {escape(note)}", highlight=False, soft_wrap=True)
    if len(conversion.notes) > SHOWN_NOTES:
        console.print(
            f"... and {len(conversion.notes) - SHOWN_NOTES} more in {output / 'manifest.json'}",
            soft_wrap=True,
        )
    console.print(f"look at: {output / 'report.html'}", markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"next: scripts/finetune_lora.sh configs/tiny_cpu.yaml data_path={output / 'train.json'} "
        f"val_path={output / 'val.json'} image_folder={output} output_dir=runs/{output.name}",
        highlight=False,
        soft_wrap=True,
    )


def _leaks_text(leaks: Leaks) -> str:
    text = (
        f"{leaks.twins} near-twin pair(s), {leaks.akin} pair(s) in one group: here none is in two splits; "
        f"a random split by picture would put {leaks.random_twins:g} and {leaks.random_akin:g} there "
        f"(expected)"
    )
    if leaks.given_twins is not None:
        text += f", the source's own splits put {leaks.given_twins} and {leaks.given_akin}"
    return text


def _table(output: Path, summaries: Mapping[Split, SplitSummary]) -> Table:
    table = Table(title=str(output))
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
        facts = [part.tasks.get(task, {"questions": 0}) for part in parts]
        shares = [f"{fact['yes_share']:.0%}" if "yes_share" in fact else "" for fact in facts]
        row(f"  {task}", [fact["questions"] for fact in facts], shares)
    return table

"""The report on a conversion: its units, the answers in its records, what became of source pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_prep.annotations import AnnotatedSource
from data_prep.images.units import PreparedImage
from data_prep.model_inputs import ModelInput
from data_prep.report.model import AnswerCounts, ComparedImage, Dialogue, MessageList, Report, View
from data_prep.report.summary import SplitSummary, change_lines, left_out_lines, made_line
from data_prep.report.survey import choose_samples, survey
from data_prep.source_folder import SPLITS, Split
from data_prep.splits.assign import Conversion
from llava.common.json_stream import stream_records

# A task counts as one-sided from this share of its commonest answer in train.
ONE_SIDED = {"yesno": 0.65, "class": 0.8}


def conversion_report(
    folder: Path,
    conversion: Conversion,
    summaries: Mapping[Split, SplitSummary],
    sources: Sequence[AnnotatedSource],
    prepared: Sequence[Sequence[PreparedImage]],
    model_inputs: Sequence[ModelInput],
) -> Report:
    """The report on a conversion whose pictures and records lie in `folder`, made of `sources`, cut to
    `prepared`; box sizes are shown as the `eyes` see them."""
    views = [
        View(
            unit.key if unit.origin is None else f"{unit.key}, made by {unit.origin.method}",
            folder / unit.image,
            unit.size,
            (*unit.components, *unit.defects),
            unit.labels,
            split,
            unit.image,
        )
        for split in SPLITS
        for unit in conversion.units[split]
    ]
    chosen = choose_samples(views)
    answers, conversations = tally(folder, [view.image for view in chosen])
    report = survey(
        "Conversion report",
        views,
        [replace(view, conversations=tuple(conversations[view.image])) for view in chosen],
        _seen(folder, conversion, sources, prepared),
        conversion.checks,
        conversion.leaks,
        conversion.recipe,
        model_inputs,
        converted=True,
    )
    report.facts = [
        ("format", ", ".join(dict.fromkeys(source.format for source in sources))),
        ("source pictures", f"{sum(len(source.images) for source in sources):,}"),
        (f"{report.unit}s written", f"{len(views):,}"),
        ("groups", f"{len(set(conversion.group_of.values())):,}"),
        ("questions and answers", f"{sum(part.count + part.turns for part in answers):,}"),
        ("box sizes judged by", model_inputs[0].summary),
    ]
    if made := made_line(conversion.units["train"]):
        report.facts.append(("made pictures in train", made))
    report.answers = answers
    report.kinds = {split: Counter(summaries[split].labels) for split in summaries}
    report.warnings += one_sided(answers)
    report.split_counts = {
        split: {
            f"{report.unit}s": summaries[split].pictures,
            "groups": summaries[split].groups,
            "questions": sum(part.count for part in answers if part.split == split),
            "turns of dialogues": sum(part.turns for part in answers if part.split == split),
        }
        for split in summaries
    }
    report.notes = [
        MessageList("Changed in pictures", "Done before they were cut.", change_lines(conversion)),
        MessageList(
            "Left out and not asked", "By the recipe's rules, by reason.", left_out_lines(conversion)
        ),
        MessageList(
            "Put right or passed over", "A line for each thing, as in manifest.json.", conversion.notes
        ),
    ]
    return report


def tally(folder: Path, wanted: Iterable[str]) -> tuple[list[AnswerCounts], dict[str, list[Dialogue]]]:
    """The answers of every task in train.json, val.json and test.json, and the conversations about each of
    the `wanted` images. Reads record by record."""
    answers: dict[tuple[str, str, str], AnswerCounts] = {}
    found: dict[str, list[Dialogue]] = {image: [] for image in wanted}
    for split in SPLITS:
        file = folder / f"{split}.json"
        for _, record in stream_records(file) if file.exists() else ():
            meta: dict[str, Any] = record.get("meta", {})
            task, language = str(meta.get("task", "no task")), str(meta.get("language", ""))
            texts = [turn["value"] for turn in record["conversations"]]
            turns = tuple(zip(texts[::2], texts[1::2], strict=True))
            key = (split, task, language)
            part = answers.setdefault(key, AnswerCounts(split, task, language, str(meta.get("type", ""))))
            if len(turns) == 1:
                part.count += 1
                part.add(turns[0][1])
            else:
                part.turns += len(turns)
            image = record.get("image")
            for name in [image] if isinstance(image, str) else image or []:
                if name in found:
                    found[name].append(Dialogue(task, turns))
    return list(answers.values()), found


def one_sided(answers: Iterable[AnswerCounts]) -> list[str]:
    """A line per task of train that mostly has one answer."""
    warnings = []
    for part in answers:
        if part.split != "train" or part.count < 10 or part.commonest is None:
            continue
        answer, share = part.commonest
        if share > ONE_SIDED.get(part.type, 1):
            warnings.append(
                f"{part.task}: {share:.0%} of the answers in train are {answer!r}; a model may learn to say "
                f"just that. Balance the family (balance, absent) or add pictures of the other kind."
            )
    return warnings


def _seen(
    folder: Path,
    conversion: Conversion,
    sources: Sequence[AnnotatedSource],
    prepared: Sequence[Sequence[PreparedImage]],
) -> list[ComparedImage]:
    """The source pictures, in the order of `conversion.checks`, with the split that their units went to, ""
    for those that were left out."""
    went_to: dict[tuple[bool, str], Split] = {}
    written: dict[tuple[bool, str], Path] = {}  # smaller than their sources, and so sooner drawn
    for split in SPLITS:
        for unit in conversion.units[split]:
            name = (split == "test" and len(sources) == 2, unit.source)
            went_to[name] = split
            if unit.key == unit.source:  # the whole picture
                written[name] = folder / unit.image
    compared = []
    for number in reversed(range(len(sources))):
        source, items = sources[number], prepared[number]
        for image in source.images:
            written.setdefault((number == 1, image.key), image.file)
        names = [(number == 1, item.key) for item in items]
        compared += [ComparedImage(name[1], written[name], went_to.get(name, "")) for name in names]
    return compared

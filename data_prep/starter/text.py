"""Writes a first recipe as YAML with comments, to be edited."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from data_prep.model_inputs import ModelInput
from data_prep.report.model import View
from data_prep.starter.classes import FoundClass, FoundClasses, find_classes
from data_prep.starter.families import FEWEST, ChosenFamilies, Wordings, choose_families
from data_prep.starter.unit import ChosenUnit, choose_unit
from llava.common.errors import InputError
from llava.common.html.markup import readable

_WIDTH = 110
_PLAIN = re.compile(r"[A-Za-z][A-Za-z -]*")

_COMPONENTS = (
    "The parts that are inspected. A picture that is only annotated with these counts as one without defects."
)
_DEFECTS = (
    "What can be wrong. `name` is the answer to `Which kind?` (`word: ...` gives another), `phrase` is how "
    "sentences say that there is one."
)
_OBJECTS = "Kinds of things to look for. No class says by its name or place that something is wrong."


def starter_recipe(
    source: str, views: Sequence[View], model_input: ModelInput, command: str, gap: float | None = None
) -> str:
    """Return a recipe for annotated images, made of their classes, boxes and conversations.

    Args:
        source: The folder's name, for the first comment.
        views: The images with the names of classes as the annotations write them.
        model_input: The model that the unit is chosen for.
        command: What to run when it is edited, for the first comment.
        gap: Seconds between photos of one moment, if the images tell when they were taken.

    Raises:
        InputError: Nothing can be asked of the images.
    """
    classes = find_classes(views)
    unit = choose_unit(views, classes, model_input)
    values = _values(classes, unit)
    chosen = choose_families(views, classes, values)
    if not chosen.families:
        why = "; ".join(f"{task}: {why}" for task, why in chosen.left_out.items()) or "no class is annotated"
        raise InputError(
            f"{source}: no question has different answers in {FEWEST} pictures or more ({why}); add pictures"
        )
    parts = [_head(source, command)]
    if classes.defects:
        noun = {"picture": "pictures", "object": "crops", "tile": "tiles"}[unit.unit]
        parts += [
            _unit_lines(unit),
            _class_lines(classes.components, "components", _COMPONENTS),
            _class_lines(classes.defects, "defects", _OBJECTS if classes.objects else _DEFECTS),
            _sound_lines(classes.sound),
            _word_lines(chosen, classes.objects, noun),
        ]
    parts += [
        _family_lines(chosen.families, chosen.left_out),
        _group_lines(gap),
        _split_lines(any(view.split for view in views)),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _values(classes: FoundClasses, unit: ChosenUnit) -> dict[str, Any]:
    """Return the recipe's values without families."""

    def kinds(found: Iterable[FoundClass]) -> list[dict[str, Any]]:
        return [{"name": item.word, "aliases": item.aliases, "phrase": item.phrase} for item in found]

    return {
        "unit": unit.unit,
        "components": kinds(classes.components),
        "defects": kinds(classes.defects),
        "crops": {"windows": unit.windows},
        "tiles": {"side": unit.side} if unit.side else {},
        "sound": [name for item in classes.sound for name in item.names],
    }


def _comment(text: str, indent: str = "") -> list[str]:
    """Return the text as lines of a comment."""
    lines, line = [], f"{indent}#"
    for word in readable(text).split():
        if len(line) + 1 + len(word) > _WIDTH:
            lines.append(line)
            line = f"{indent}#"
        line += f" {word}"
    return [*lines, line]


def _head(source: str, command: str) -> list[str]:
    return [
        *_comment(
            f"A first recipe for {source}, made of its classes and boxes. Read it, put right what is wrong, "
            "leave out what you do not want to ask, then run:"
        ),
        "#",
        f"#   {readable(command)}",
        "#",
        *_comment("docs/recipes.md says what each field means."),
    ]


def _unit_lines(unit: ChosenUnit) -> list[str]:
    lines = _comment(
        "What one question is about: picture, object (a crop around each component) or tile (overlapping "
        f"tiles). Here: {unit.why}."
    )
    lines.append(f"unit: {unit.unit}")
    if unit.unit == "object":
        lines.append(f"crops: {{windows: {unit.windows}}}")
    if unit.side:
        lines.append(f"tiles: {{side: {unit.side}}}")
    return lines


def _class_lines(found: Sequence[FoundClass], field: str, about: str) -> list[str]:
    if not found:
        return []
    lines = [*_comment(about), f"{field}:"]
    for item in found:
        where = (
            f"{item.pictures:,} pictures, {item.boxes:,} boxes"
            if item.boxes
            else f"{item.pictures:,} pictures"
        )
        lines += _comment(f"{where}; {item.why}" if item.why else where, "  ")
        lines.append(f"  - name: {_scalar(item.word)}")
        if item.aliases:
            lines.append(
                f"    aliases: [{', '.join(map(_scalar, item.aliases))}]  # as the annotations call it"
            )
        lines.append(f"    phrase: {_scalar(item.phrase)}")
    return lines


def _sound_lines(sound: Sequence[FoundClass]) -> list[str]:
    names = ", ".join(_scalar(name) for item in sound for name in item.names)
    return [
        *_comment("Classes that say that nothing is wrong; classes to pass over go to `ignore`."),
        f"sound: [{names}]" if names else "# sound: [good]",
        "ignore: []",
    ]


def _word_lines(chosen: ChosenFamilies, objects: bool, noun: str) -> list[str]:
    if chosen.some_sound:
        lines = [*_comment(f"The answer to `Which kind?` for {noun} without any."), "none_word: none"]
    else:
        lines = [*_comment(f"All {noun} show something: `none` is no answer."), "none_word: null"]
    if chosen.some_several and any(family.task == "kind" for family in chosen.families):
        about = f"Of several kinds in one of the {noun} the largest is taken; `skip` asks no kind of these."
        lines += [*_comment(about), "several: largest"]
    if objects:
        lines.append("any_defect: {word: object, phrase: an object}")
    about = "Conversations of several turns for each training picture, made of its own questions."
    return [*lines, *_comment(about), "dialogues: 1"]


def _family_lines(families: Sequence[Wordings], left_out: dict[str, str]) -> list[str]:
    lines = [
        *_comment(
            "What is asked. Each family is reported under its name; the test asks the first wording, so put "
            "the one that your inspectors use first. {kind} and {phrase} are filled in."
        ),
    ]
    if left_out:
        lines += _comment("Left out, as these pictures do not support it:")
        lines += [line for task, why in left_out.items() for line in _comment(f"- {task}: {why}")]
    lines.append("families:")
    for number, family in enumerate(families):
        lines += [""] if number else []
        if not family.values["questions"]:
            lines.append(f"  {family.task}: {{}}  # {family.about}")
            continue
        lines.append(f"  {family.task}:  # {family.about}")
        lines += [f"    {key}: {value}" for key, value in family.settings.items()]
        lines.append("    questions:")
        lines += [f"      - {_wording(text)}" for text in family.questions]
    return lines


def _group_lines(gap: float | None) -> list[str]:
    if gap is None:
        return []
    about = (
        "Photos that were taken at most so many seconds after one another, by their names or EXIF, are of "
        "one moment and stay in one split."
    )
    return [*_comment(about), f"group: {{time: {gap:g}}}"]


def _split_lines(given: bool) -> list[str]:
    about = (
        "The share of pictures to train on, to watch training with and to test. Copies stay together; "
        "`group` in docs/recipes.md says how to keep together what else belongs together."
    )
    if not given:
        return [*_comment(about), "splits: {train: 0.7, val: 0.15, test: 0.15}"]
    about += " The source's own splits are ignored, because exports often divide copies; `keep` keeps them."
    return [*_comment(about), "splits: {train: 0.7, val: 0.15, test: 0.15, given: ignore}"]


def _scalar(text: str) -> str:
    """Return a text as YAML writes it, in quotes where anything else than words is in it."""
    if _PLAIN.fullmatch(text) and yaml.safe_load(text) == text and text.strip() == text:
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable()).replace("${", "\\\\${")


def _wording(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if "\n" in text or ": " in text else text

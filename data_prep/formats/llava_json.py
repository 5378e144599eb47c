"""LLaVA's conversation JSON as a source: the conversations that it holds about pictures.

The format: a JSON list (or JSON lines) of `{"id", "image", "conversations": [{"from": "human" | "gpt",
"value"}]}` with `<image>` where the picture goes (haotian-liu/LLaVA, docs/Finetune_Custom_Data.md). Of
`meta`, where it is there, `task`, `language` and `group` are kept: our own output can be a source. A record
without a picture or with several cannot be about one picture; such records are counted in the notes.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

from data_prep.annotations import AnnotatedSource
from data_prep.formats.conversations import Collector, named_splits, plain_question, plain_text
from data_prep.formats.layout import passed_over, require_images
from data_prep.json_stream import LINES_SUFFIX, stream_items
from data_prep.source_folder import SourceFolder
from llava.common.errors import InputError
from llava.common.records import IMAGE_PLACEHOLDER

NAME = "llava"
_FIRST_BYTES = 1 << 13
_ROLES = ("human", "gpt")


def detect(folder: SourceFolder) -> str | None:
    """Why the folder looks like LLaVA's conversations, None if it does not."""
    count = sum(_is_llava(path) for path in folder.named(".json", LINES_SUFFIX))
    return f'{count} JSON file(s) with "conversations"' if count else None


def _is_llava(path: Path) -> bool:
    """By its first kilobytes: a list of objects (a line each in .jsonl) of which one has conversations."""
    try:
        with path.open("rb") as file:
            start = file.read(_FIRST_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError:
        return False
    opening = rb"\{" if path.suffix.lower() == LINES_SUFFIX else rb"\[\s*\{"
    # Within a text the quotes would be escaped.
    return (
        re.match(opening, start) is not None and re.search(rb'(?<!\\)"conversations"\s*:', start) is not None
    )


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Every such file anywhere below the folder: a Talk per record, gathered by picture.

    Returns the source and one line per problem (a picture that is not there, roles out of turn, an empty
    answer); a caller that gets problems must not go on. InputError for a folder without such a file or
    without pictures.
    """
    candidates = folder.named(".json", LINES_SUFFIX)
    files = [path for path in candidates if _is_llava(path)]
    if not files:
        raise InputError(
            f"{folder.root}: no list of records with `conversations` (.json, .jsonl) in it or below"
        )
    require_images(folder, f"{folder.root}: {len(files)} conversation file(s)")
    into = Collector(folder)
    splits = named_splits(files)
    for file in files:
        into.begin(file)
        left_out: Counter[str] = Counter()
        for line, record, why in stream_items(file):
            place = f"line {line}"
            if isinstance(record, dict) and isinstance(record.get("id"), str | int):
                place += f" (id {record['id']!r:.80})"
            try:
                if why is not None:
                    raise InputError(why)
                if reason := _add_record(into, place, record, splits.get(file)):
                    left_out[reason] += 1
            except InputError as error:
                into.problem(place, error)
        into.end()
        into.notes += [f"{file}: {count} record(s) {reason} left out" for reason, count in left_out.items()]
        if file in splits:
            into.notes.append(f"{file}: its pictures are of the split {splits[file]}, as its name says")
    others = sorted(set(candidates) - set(files))
    into.notes += passed_over(folder, others, "JSON file(s) without conversations")
    return into.source(NAME), into.problems


def _add_record(into: Collector, place: str, record: Any, split: str | None) -> str | None:
    """Why the record is left out, None if it is taken in. InputError if it cannot be used."""
    if not isinstance(record, dict):
        raise InputError("not a record with named fields")
    images = record.get("image")
    if not images:
        return "without a picture"
    if isinstance(images, list):
        if len(images) > 1:
            return "with several pictures"
        (images,) = images
    name = plain_text(images, "image")
    if not name:
        raise InputError("names no picture")
    turns = _turns(record.get("conversations"))
    meta = record["meta"] if isinstance(record.get("meta"), dict) else {}
    task, language, group = (
        plain_text(meta.get(key), f"meta.{key}") for key in ("task", "language", "group")
    )
    image = into.image(name)
    if split:
        into.agree(place, image, "split", split)
    if group:
        into.agree(place, image, "group", group)
    into.talk(image, turns, task, language)
    return None


def _turns(conversation: object) -> list[tuple[str, str]]:
    """(question, answer) pairs without the picture's mark, which must be in the first question."""
    if not isinstance(conversation, list) or not conversation:
        raise InputError("has no conversations")
    texts = []
    for position, turn in enumerate(conversation):
        if not isinstance(turn, dict) or turn.get("from") != _ROLES[position % 2]:
            role = turn.get("from") if isinstance(turn, dict) else turn
            raise InputError(f"turn {position} is from {role!r:.40}, expected {_ROLES[position % 2]!r}")
        texts.append(plain_text(turn.get("value"), f"turn {position}"))
    if len(texts) % 2:
        raise InputError("the last turn is from 'human': it needs an answer")
    if (marks := texts[0].count(IMAGE_PLACEHOLDER)) != 1:
        raise InputError(f"{marks} {IMAGE_PLACEHOLDER} mark(s) in its first question, expected 1")
    texts[0] = texts[0].replace(IMAGE_PLACEHOLDER, "")
    texts = [plain_question(text, f"turn {position}") for position, text in enumerate(texts)]
    return list(zip(texts[::2], texts[1::2], strict=True))

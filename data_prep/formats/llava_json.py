"""Read LLaVA's conversation JSON as a source: the conversations that it holds about images.

The format: a JSON list (or JSON lines) of `{"id", "image", "conversations": [{"from": "human" | "gpt",
"value"}]}` with `<image>` where the image goes (haotian-liu/LLaVA, docs/Finetune_Custom_Data.md). Of `meta`,
where present, `task`, `language` and `group` are kept: our own output can be a source. A record without an
image or with several cannot be about one image; such records are counted in the notes.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

from data_prep.annotations import AnnotatedSource
from data_prep.formats.conversations import ConversationCollector, parse_text, parse_turn, splits_of_files
from data_prep.formats.layout import note_unused, require_images
from data_prep.source_folder import SourceFolder
from llava.common.errors import InputError
from llava.common.json_stream import LINES_SUFFIX, stream_items
from llava.common.records import IMAGE_PLACEHOLDER, is_synthetic, unread_content

NAME = "llava"
_DETECT_BYTES = 1 << 16
_ROLES = ("human", "gpt")


def detect(folder: SourceFolder) -> str | None:
    """Return why the folder looks like LLaVA's conversations, None if it does not."""
    count = sum(_is_llava(path) for path in folder.named(".json", LINES_SUFFIX))
    return f'{count} JSON file(s) with "conversations"' if count else None


def _is_llava(path: Path) -> bool:
    """Judge by the first bytes: a list of objects (a line each in .jsonl) of which one has
    conversations."""
    try:
        with path.open("rb") as file:
            start = file.read(_DETECT_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError:
        return False
    opening = rb"\{" if path.suffix.lower() == LINES_SUFFIX else rb"\[\s*\{"
    # Within a text the quotes would be escaped.
    return (
        re.match(opening, start) is not None and re.search(rb'(?<!\\)"conversations"\s*:', start) is not None
    )


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Read every such file in the folder or below: a Conversation for each record, gathered by image.

    Returns:
        The source and the problems, one line each (an image that does not exist, roles out of turn, an empty
        answer); a caller that gets problems must not go on.

    Raises:
        InputError: The folder holds no such file or no images.
    """
    candidates = folder.named(".json", LINES_SUFFIX)
    files = [path for path in candidates if _is_llava(path)]
    if not files:
        raise InputError(
            f"{folder.root}: no list of records with `conversations` (.json, .jsonl) in it or below"
        )
    require_images(folder, f"{folder.root}: {len(files)} conversation file(s)")
    collector = ConversationCollector(folder)
    splits = splits_of_files(files)
    for file in files:
        _read_file(collector, file, splits.get(file))
    others = sorted(set(candidates) - set(files))
    collector.notes += note_unused(folder, others, "JSON file(s) without conversations")
    return collector.make_source(NAME), collector.problems


def _read_file(collector: ConversationCollector, file: Path, split: str | None) -> None:
    collector.start_file(file)
    left_out: Counter[str] = Counter()
    for line, record, error in stream_items(file):
        place = f"line {line}"
        if isinstance(record, dict) and isinstance(record.get("id"), str | int):
            place += f" (id {record['id']!r:.80})"
        if error is not None:
            collector.add_problem(place, error)
            continue
        try:
            if reason := _add_record(collector, place, record, split):
                left_out[reason] += 1
        except InputError as unusable:
            collector.add_problem(place, unusable)
    collector.finish_file()
    collector.notes += [f"{file}: {count} record(s) {reason} left out" for reason, count in left_out.items()]
    if split:
        collector.notes.append(f"{file}: its pictures are of the split {split}, as its name says")


def _add_record(collector: ConversationCollector, place: str, record: Any, split: str | None) -> str | None:
    """Add a record to the collector.

    Args:
        collector: Gathers the records of all files.
        place: The record's place in the file.
        record: What it holds.
        split: The split of all images of the file, None if its name states none.

    Returns:
        Why the record is left out, None if it was added.

    Raises:
        InputError: The record cannot be used.
    """
    if not isinstance(record, dict):
        raise InputError("not a record with named fields")
    images = record.get("image")
    if not images and not record.get("images"):
        return "without a picture"
    if reason := unread_content(record):
        raise InputError(reason)
    if is_synthetic(record.get("meta")):
        return "with a made picture, which must not be tested on,"
    if isinstance(images, list):
        if len(images) > 1:
            return "with several pictures"
        (images,) = images
    name = parse_text(images, "image")
    if not name:
        raise InputError("names no picture")
    turns = _parse_turns(record.get("conversations"))
    meta = record["meta"] if isinstance(record.get("meta"), dict) else {}
    task, language, group = (
        parse_text(meta.get(key), f"meta.{key}") for key in ("task", "language", "group")
    )
    image = collector.find_image(name)
    if split:
        collector.set_property(place, image, "split", split)
    if group:
        collector.set_property(place, image, "group", group)
    collector.add_conversation(image, turns, task, language)
    return None


def _parse_turns(conversation: object) -> list[tuple[str, str]]:
    """Return (question, answer) pairs without the image placeholder, which must be in the first question."""
    if not isinstance(conversation, list) or not conversation:
        raise InputError("has no conversations")
    texts = []
    for position, turn in enumerate(conversation):
        if not isinstance(turn, dict) or turn.get("from") != _ROLES[position % 2]:
            role = turn.get("from") if isinstance(turn, dict) else turn
            raise InputError(f"turn {position} is from {role!r:.40}, expected {_ROLES[position % 2]!r}")
        texts.append(parse_text(turn.get("value"), f"turn {position}"))
    if len(texts) % 2:
        raise InputError("the last turn is from 'human': it needs an answer")
    if (placeholders := texts[0].count(IMAGE_PLACEHOLDER)) != 1:
        raise InputError(f"{placeholders} {IMAGE_PLACEHOLDER} mark(s) in its first question, expected 1")
    texts[0] = texts[0].replace(IMAGE_PLACEHOLDER, "")
    texts = [parse_turn(text, f"turn {position}") for position, text in enumerate(texts)]
    return list(zip(texts[::2], texts[1::2], strict=True))

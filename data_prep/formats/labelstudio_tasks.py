"""The tasks of a Label Studio export: which annotation of each counts, and which picture it speaks of."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any
from urllib.parse import unquote

from data_prep.formats.layout import OtherFormatError
from data_prep.formats.outlines import name_of, number, size
from data_prep.source_folder import IMAGE_SUFFIXES
from llava.common.errors import InputError
from llava.common.files import read_json

_UPLOAD = re.compile(r"[0-9a-f]{8}-(?=.)")  # put before the name of an uploaded file
# What a task of JSON-MIN holds beside its data and results.
_MIN_KEYS = {"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement"}


@dataclass(frozen=True)
class Result:
    """One shape or choice: its kind (`rectanglelabels`, `choices`, ...), the id that results about one shape
    share ("" for none) and its facts."""

    kind: str
    id: str
    value: dict[str, Any]


@dataclass(frozen=True)
class Task:
    """What counts of one task. `where` names it in messages, `address` is its picture's; `size` is (width,
    height) of the picture as annotated, None where the file does not state it."""

    where: str
    address: str
    size: tuple[float, float] | None
    results: tuple[Result, ...]
    notes: tuple[str, ...]


def read_tasks(file: Path) -> tuple[list[Task], list[str], list[str]]:
    """Read one JSON file: its annotated tasks, a line per task that cannot be used, and notes on the whole.

    Skipped ("cancelled") annotations and predictions are not used; of several annotations of a task the
    latest is. InputError naming the file if it is not Label Studio's.
    """
    tasks = read_json(file)
    if not isinstance(tasks, list) or not (_is_full(tasks) or _is_min(tasks)):
        raise OtherFormatError(f"{file}: not a Label Studio export (JSON or JSON-MIN)")
    notes: list[str] = []
    found: list[Task] = []
    problems: list[str] = []
    bare = 0
    full = _is_full(tasks)
    for place, item in enumerate(tasks if full else _latest_min(file, tasks, notes), start=1):
        id = item.get("id") if isinstance(item, dict) else None
        where = f"{file}, task {id!r}" if isinstance(id, (int, str)) else f"{file}, task number {place}"
        try:
            task = _full_task(where, item) if full else _min_task(file, where, item, notes)
        except InputError as error:
            problems.append(str(error))
            continue
        found += [task] if task else []
        bare += task is None
    if bare:
        notes.append(f"{file}: {bare} task(s) without a finished annotation passed over")
    return found, problems, list(dict.fromkeys(notes))


def _is_full(tasks: list[Any]) -> bool:
    return any(
        isinstance(task, dict)
        and isinstance(task.get("data"), dict)
        and ("annotations" in task or "completions" in task)
        for task in tasks
    )


def _is_min(tasks: list[Any]) -> bool:
    return any(
        isinstance(task, dict) and ("annotation_id" in task or any(_shapes_of(task))) for task in tasks
    )


def _full_task(where: str, task: Any) -> Task | None:
    """None for a task without a finished annotation."""
    if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
        raise InputError(f'{where}: has no "data"')
    annotations = task.get("annotations", task.get("completions")) or []
    if not isinstance(annotations, list) or not all(isinstance(item, dict) for item in annotations):
        raise InputError(f"{where}: its annotations are not written out; export with full annotations")
    finished = [item for item in annotations if not (item.get("was_cancelled") or item.get("skipped"))]
    if not finished:
        return None
    notes = []
    if skipped := len(annotations) - len(finished):
        notes.append(f"{where}: {skipped} skipped annotation(s) not used")
    if len(finished) > 1:
        notes.append(f"{where}: the latest of {len(finished)} annotations taken")
    results = sorted(finished, key=_time)[-1].get("result") or []
    if not isinstance(results, list):
        raise InputError(f'{where}: "result" is not a list')
    known: list[Result] = []
    sizes: set[tuple[float, float]] = set()
    for item in results:
        if not isinstance(item, dict):
            raise InputError(f"{where}: a result is {type(item).__name__}, expected an object")
        value = item.get("value")
        if item.get("type") == "relation" or not isinstance(value, dict):  # an arrow between two shapes
            continue
        kind = name_of(item.get("type")) or "nameless"
        known.append(Result(kind, str(item.get("id") or ""), value))
        sizes |= _stated_size(where, item)
    return Task(where, _address(where, task["data"]), _one_size(where, sizes), tuple(known), tuple(notes))


def _latest_min(file: Path, tasks: list[Any], notes: list[str]) -> list[Any]:
    """JSON-MIN repeats a task for each of its annotators."""
    latest: dict[Any, Any] = {}
    repeated: Counter[Any] = Counter()
    for place, task in enumerate(tasks):
        id = task.get("id") if isinstance(task, dict) else None
        key = ("id", repr(id)) if id is not None else ("place", str(place))
        repeated[key] += 1
        if key not in latest or _time(task) >= _time(latest[key]):
            latest[key] = task
    notes += [
        f"{file}, task {key[1]}: the latest of {count} annotations taken"
        for key, count in repeated.items()
        if count > 1
    ]
    return list(latest.values())


def _min_task(file: Path, where: str, task: Any, notes: list[str]) -> Task:
    if not isinstance(task, dict):
        raise InputError(f"{where}: is {type(task).__name__}, expected an object")
    known: list[Result] = []
    sizes: set[tuple[float, float]] = set()
    address = _address(where, task)
    for kind, value in _shapes_of(task):
        known.append(Result(kind, "", value))
        sizes |= _stated_size(where, value)
    for key, value in task.items():
        if isinstance(value, dict) and isinstance(value.get("choices"), list):
            known.append(Result("choices", "", value))
        elif isinstance(value, str) and key not in _MIN_KEYS and value != address:
            notes.append(f"{file}: {key!r} may be a choice or data, not used; the JSON export tells which")
    return Task(where, address, _one_size(where, sizes), tuple(known), ())


def _shapes_of(task: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The shapes of a task of JSON-MIN, with their kinds."""
    for values in task.values():
        for value in values if isinstance(values, list) else []:
            if isinstance(value, dict):
                yield from ((kind, value) for kind in value if kind.endswith("labels"))


def _time(annotation: Any) -> str:
    return str(annotation.get("updated_at") or annotation.get("created_at") or "")


def _stated_size(where: str, item: dict[str, Any]) -> set[tuple[float, float]]:
    if number(item.get("image_rotation")):
        raise InputError(
            f"{where}: its picture was turned in Label Studio, so that the places of its shapes are unsure; "
            f"turn it back there and export again"
        )
    stated = size(item.get("original_width"), item.get("original_height"))
    return {stated} if stated else set()


def _one_size(where: str, sizes: set[tuple[float, float]]) -> tuple[float, float] | None:
    if len(sizes) > 1:
        listed = " and ".join(f"{width:g}x{height:g}" for width, height in sorted(sizes))
        raise InputError(f"{where}: its shapes were drawn on pictures of {listed}; draw them again on one")
    return next(iter(sizes), None)


def _address(where: str, data: dict[str, Any]) -> str:
    """Where Label Studio found the picture: the `image` of the data, else the only text that ends as a
    picture's name does."""
    named = {
        key: text
        for key, text in data.items()
        if isinstance(text, str) and _suffix(text).lower() in IMAGE_SUFFIXES
    }
    if isinstance(image := data.get("image"), str) and image.strip():
        named = {"image": image}
    if len(named) != 1:
        listed = ", ".join(map(repr, named)) or "none"
        raise InputError(f"{where}: cannot tell its picture (addresses found: {listed}); call it 'image'")
    (address,) = named.values()
    if address.startswith("data:"):
        raise InputError(f"{where}: the picture is inside the file; save it as a file and write its name")
    return address


def _suffix(address: str) -> str:
    return PureWindowsPath(image_names(address)[0]).suffix


def image_names(address: str) -> list[str]:
    """The paths that an address may mean, the likeliest first.

    `/data/upload/1/1a2b3c4d-a.jpg`, `/data/local-files/?d=set/a.jpg`, `s3://bucket/set/a.jpg`,
    `https://host/set/a%20b.jpg?key=1`; the eight digits before an uploaded file's name may be taken off.
    """
    local = re.search(r"[?&]d=([^&]*)", address)
    path = local[1] if local else re.split(r"[?#]", address)[0] or address
    names = [unquote(path), path, address]  # as written: a key of a store may hold ? and #
    for name in tuple(names):
        last = PureWindowsPath(name).name
        if plain := _UPLOAD.sub("", last, count=1) if _UPLOAD.match(last) else "":
            names.append(name[: len(name) - len(last)] + plain)
    return list(dict.fromkeys(names))

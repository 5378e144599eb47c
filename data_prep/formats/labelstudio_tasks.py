"""Read the tasks of a Label Studio export: which annotation of each counts, and the address of its image."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any
from urllib.parse import unquote

from data_prep.formats.fields import parse_class_name, parse_number, parse_size
from data_prep.formats.layout import OtherFormatError
from data_prep.source_folder import IMAGE_SUFFIXES
from llava.common.errors import InputError
from llava.common.files import read_json

_UPLOAD = re.compile(r"[0-9a-f]{8}-(?=.)")  # put before the name of an uploaded file
# What a task of JSON-MIN holds beside its data and results.
_MIN_KEYS = {"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement"}


@dataclass(frozen=True)
class Result:
    """One shape or choice.

    `kind` is what it is (`rectanglelabels`, `choices`, ...), `id` is shared by the results about one shape
    ("" for none), `value` holds its place and classes.
    """

    kind: str
    id: str
    value: dict[str, Any]


@dataclass(frozen=True)
class Task:
    """The part of a task that counts.

    `place` names it in messages, `address` is its image's; `size` is the (width, height) of the image as
    annotated, None where the file does not state it.
    """

    place: str
    address: str
    size: tuple[float, float] | None
    results: tuple[Result, ...]
    notes: tuple[str, ...]


def read_tasks(file: Path) -> tuple[list[Task], list[str], list[str]]:
    """Read one JSON file.

    Skipped ("cancelled") annotations and predictions are not used; of several annotations of a task the
    latest is.

    Returns:
        Its annotated tasks, a problem for each task that cannot be used, and notes on the file as a whole.

    Raises:
        OtherFormatError: The file is not Label Studio's.
    """
    items = read_json(file)
    if not isinstance(items, list) or not (_is_full_export(items) or _is_min_export(items)):
        raise OtherFormatError(f"{file}: not a Label Studio export (JSON or JSON-MIN)")
    notes: list[str] = []
    tasks: list[Task] = []
    problems: list[str] = []
    unfinished = 0
    is_full = _is_full_export(items)
    for position, item in enumerate(items if is_full else _latest_of_each(file, items, notes), start=1):
        id = item.get("id") if isinstance(item, dict) else None
        place = f"{file}, task {id!r}" if isinstance(id, (int, str)) else f"{file}, task number {position}"
        try:
            task = _read_full_task(place, item) if is_full else _read_min_task(file, place, item, notes)
        except InputError as error:
            problems.append(str(error))
            continue
        if task is None:
            unfinished += 1
        else:
            tasks.append(task)
    if unfinished:
        notes.append(f"{file}: {unfinished} task(s) without a finished annotation passed over")
    return tasks, problems, list(dict.fromkeys(notes))


def _is_full_export(items: list[Any]) -> bool:
    return any(
        isinstance(item, dict)
        and isinstance(item.get("data"), dict)
        and ("annotations" in item or "completions" in item)
        for item in items
    )


def _is_min_export(items: list[Any]) -> bool:
    return any(
        isinstance(item, dict) and ("annotation_id" in item or any(_min_shapes(item))) for item in items
    )


def _read_full_task(place: str, item: Any) -> Task | None:
    """Read a task of the JSON export; None if it has no finished annotation."""
    if not isinstance(item, dict) or not isinstance(item.get("data"), dict):
        raise InputError(f'{place}: has no "data"')
    annotations = item.get("annotations", item.get("completions")) or []
    if not isinstance(annotations, list) or not all(isinstance(one, dict) for one in annotations):
        raise InputError(f"{place}: its annotations are not written out; export with full annotations")
    finished = [one for one in annotations if not (one.get("was_cancelled") or one.get("skipped"))]
    if not finished:
        return None
    notes = []
    if skipped := len(annotations) - len(finished):
        notes.append(f"{place}: {skipped} skipped annotation(s) not used")
    if len(finished) > 1:
        notes.append(f"{place}: the latest of {len(finished)} annotations taken")
    results, sizes = _read_results(place, sorted(finished, key=_time)[-1].get("result") or [])
    address = _image_address(place, item["data"])
    return Task(place, address, _common_size(place, sizes), results, tuple(notes))


def _read_results(place: str, items: Any) -> tuple[tuple[Result, ...], list[tuple[float, float]]]:
    """Return the results of an annotation, without relations, and the image sizes that they state."""
    if not isinstance(items, list):
        raise InputError(f'{place}: "result" is not a list')
    results: list[Result] = []
    sizes: list[tuple[float, float]] = []
    for item in items:
        if not isinstance(item, dict):
            raise InputError(f"{place}: a result is {type(item).__name__}, expected an object")
        value = item.get("value")
        if item.get("type") == "relation" or not isinstance(value, dict):  # an arrow between two shapes
            continue
        kind = parse_class_name(item.get("type")) or "nameless"
        results.append(Result(kind, str(item.get("id") or ""), value))
        sizes += _stated_size(place, item)
    return tuple(results), sizes


def _latest_of_each(file: Path, items: list[Any], notes: list[str]) -> list[Any]:
    """Return the latest annotation of each task: JSON-MIN repeats a task for each of its annotators."""
    latest: dict[Any, Any] = {}
    repeated: Counter[Any] = Counter()
    for position, item in enumerate(items):
        id = item.get("id") if isinstance(item, dict) else None
        key = ("id", repr(id)) if id is not None else ("position", str(position))
        repeated[key] += 1
        if key not in latest or _time(item) >= _time(latest[key]):
            latest[key] = item
    notes += [
        f"{file}, task {key[1]}: the latest of {count} annotations taken"
        for key, count in repeated.items()
        if count > 1
    ]
    return list(latest.values())


def _read_min_task(file: Path, place: str, item: Any, notes: list[str]) -> Task:
    """Read a task of the JSON-MIN export; `notes` are on the file as a whole."""
    if not isinstance(item, dict):
        raise InputError(f"{place}: is {type(item).__name__}, expected an object")
    address = _image_address(place, item)
    results: list[Result] = []
    sizes: list[tuple[float, float]] = []
    for kind, value in _min_shapes(item):
        results.append(Result(kind, "", value))
        sizes += _stated_size(place, value)
    for key, value in item.items():
        if isinstance(value, dict) and isinstance(value.get("choices"), list):
            results.append(Result("choices", "", value))
        elif isinstance(value, str) and key not in _MIN_KEYS and value != address:
            notes.append(f"{file}: {key!r} may be a choice or data, not used; the JSON export tells which")
    return Task(place, address, _common_size(place, sizes), tuple(results), ())


def _min_shapes(item: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the shapes of a task of JSON-MIN, with their kinds."""
    for values in item.values():
        for value in values if isinstance(values, list) else []:
            if isinstance(value, dict):
                yield from ((kind, value) for kind in value if kind.endswith("labels"))


def _time(annotation: Any) -> str:
    return str(annotation.get("updated_at") or annotation.get("created_at") or "")


def _stated_size(place: str, item: dict[str, Any]) -> list[tuple[float, float]]:
    """Return the size that a result states for its image, none or one."""
    if parse_number(item.get("image_rotation")):
        raise InputError(
            f"{place}: its picture was turned in Label Studio, so that the places of its shapes are unsure; "
            f"turn it back there and export again"
        )
    stated = parse_size(item.get("original_width"), item.get("original_height"))
    return [stated] if stated else []


def _common_size(place: str, stated: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    """Return the one size that is stated, None if none is. InputError if several are."""
    sizes = sorted(set(stated))
    if len(sizes) > 1:
        listed = " and ".join(f"{width:g}x{height:g}" for width, height in sizes)
        raise InputError(f"{place}: its shapes were drawn on pictures of {listed}; draw them again on one")
    return sizes[0] if sizes else None


def _image_address(place: str, data: dict[str, Any]) -> str:
    """Return where Label Studio found the image: the `image` of the data, else the only text that ends as an
    image's name does."""
    addresses = {
        key: text
        for key, text in data.items()
        if isinstance(text, str) and _suffix(text).lower() in IMAGE_SUFFIXES
    }
    if isinstance(image := data.get("image"), str) and image.strip():
        addresses = {"image": image}
    if len(addresses) != 1:
        listed = ", ".join(map(repr, addresses)) or "none"
        raise InputError(f"{place}: cannot tell its picture (addresses found: {listed}); call it 'image'")
    (address,) = addresses.values()
    if address.startswith("data:"):
        raise InputError(f"{place}: the picture is inside the file; save it as a file and write its name")
    return address


def _suffix(address: str) -> str:
    return PureWindowsPath(image_names(address)[0]).suffix


def image_names(address: str) -> list[str]:
    """Return the paths that an address may mean, the likeliest first.

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

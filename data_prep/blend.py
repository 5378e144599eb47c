"""General conversations among the training records, so that a tuned model keeps its manners.

`convert --blend FILE.json --blend-image-folder DIR --blend-share 0.2` draws records of other LLaVA JSON (a
part of LLaVA's own mix, say) into train.json. The share is of the resulting train records. Their pictures go
the way of all others: re-encoded and named by their content. Their ids are made anew. A picture that looks
like one of val or test is refused.
"""

from __future__ import annotations

import argparse
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.progress import track

from data_prep.annotations import AnnotatedImage
from data_prep.images.store import ImageStore
from data_prep.images.units import Prepared, prepare
from data_prep.json_stream import stream_records
from data_prep.recipe.schema import Recipe
from data_prep.splits.splits import near_twins
from llava.common.errors import InputError
from llava.common.files import inside, sha256, write_json_list
from llava.common.records import Record

TASK = "general"


@dataclass(frozen=True)
class General:
    """A file of general conversations: `usable` are the positions of the records that could be taken,
    `left_out` says how many could not, by reason."""

    file: Path
    image_folder: Path | None
    share: float
    usable: Sequence[int]
    left_out: Counter[str] = field(default_factory=Counter)


def find_general(args: argparse.Namespace) -> General | None:
    """What the options of `add_blend_options` ask for, None if nothing; the file is read once, no picture.

    A record that does not follow LLaVA's rules, has several pictures or one that is not there is left out.
    InputError for options that do not go together and a file that is not JSON.
    """
    if args.blend is None:
        for option in ("blend_image_folder", "blend_share"):
            if getattr(args, option) is not None:
                raise InputError(f"--{option.replace('_', '-')} needs --blend FILE.json")
        return None
    share: float | None = args.blend_share
    if share is None or not 0 < share < 1:
        raise InputError("--blend needs --blend-share, a number between 0 and 1, for instance 0.2")
    folder: Path | None = args.blend_image_folder
    if folder is not None and not folder.is_dir():
        raise InputError(f"--blend-image-folder {folder}: no such folder")
    usable: list[int] = []
    left_out: Counter[str] = Counter()
    there: dict[str, bool] = {}
    for position, (_, value) in enumerate(stream_records(args.blend)):
        record = _record(value)
        if record is None:
            left_out["records that do not follow LLaVA's rules"] += 1
        elif len(record.images) > 1:
            # One column of names and of lists is more than `datasets` and the tools built on it read.
            left_out["records with several pictures"] += 1
        elif record.images and folder is None:
            left_out["records with pictures (no --blend-image-folder)"] += 1
        elif not all(_is_there(folder, name, there) for name in record.images):
            left_out["records whose picture is absent"] += 1
        else:
            usable.append(position)
    return General(args.blend, folder, share, usable, left_out)


def _record(value: object) -> Record | None:
    if isinstance(value, dict):  # their ids are not kept, so any will do: some mixes have numbers or none
        value = {**value, "id": str(value.get("id", "")), "meta": {}}
    try:
        record = Record.model_validate(value)
        for turn in record.conversations:
            turn.value.encode()
    except (ValidationError, UnicodeEncodeError):
        return None
    return record


def _is_there(folder: Path | None, name: str, known: dict[str, bool]) -> bool:
    if name not in known:
        try:
            known[name] = folder is not None and inside(folder, name).is_file()
        except (InputError, OSError, ValueError):  # outside the folder, or no name a file can have
            known[name] = False
    return known[name]


def blend(
    general: General,
    folder: Path,
    recipe: Recipe,
    store: ImageStore,
    seed: int,
    workers: int,
    held_out: Sequence[bytes],
) -> dict[str, Any]:
    """Add records of `general` to `folder`/train.json and their pictures to `store`; returns what the
    manifest says of it.

    To be called when train.json and all other pictures are written, as records are added to a share.
    `held_out` are the fingerprints of the source pictures of val and test: none of them, nor a near-twin by
    the recipe's rule, may come back as a training picture. The same `seed`, file and number of train records
    draw the same records. InputError naming the largest possible share if there are too few, naming a damaged
    picture, and naming one that val or test hold.
    """
    train = folder / "train.json"
    others = sum(1 for _ in stream_records(train))
    wanted = round(general.share * others / (1 - general.share))
    if wanted > len(general.usable):
        raise InputError(_too_few(general, wanted, others))
    drawn = set(random.Random(f"{seed}/blend").sample(general.usable, wanted))
    records = {
        position: record
        for position, (_, value) in enumerate(stream_records(general.file))
        if position in drawn and (record := _record(value)) is not None
    }
    names = sorted({name for record in records.values() for name in record.images})
    prepared = _write_images(general, names, recipe, store, workers)
    _check_held_out(general, prepared, held_out, recipe.group.twins or 0)
    written = {name: item.units[0].image for name, item in prepared.items()}
    blended = (_blended(general, position, record, written) for position, record in records.items())
    write_json_list(train, chain((value for _, value in stream_records(train)), blended))
    reasons = "".join(f"; left out: {number} {reason}" for reason, number in sorted(general.left_out.items()))
    print(f"{general.file}: {len(records)} of {len(general.usable)} records blended into train{reasons}")
    return {
        "file": str(general.file),
        "sha256": sha256(general.file),
        "share": general.share,
        "records": len(records),
        "pictures": sorted(set(written.values())),
        "left_out": dict(sorted(general.left_out.items())),
    }


def _check_held_out(
    general: General, prepared: Mapping[str, Prepared], held_out: Sequence[bytes], within: int
) -> None:
    """InputError naming the first picture that looks like a held-out one, and how many more there are."""
    hashes = [*held_out, *(item.fingerprint for item in prepared.values())]
    twins = {
        int(other) - len(held_out)
        for index, others, _ in near_twins(hashes, within)
        if index < len(held_out)
        for other in others
        if other >= len(held_out)
    }
    if twins:
        first = list(prepared)[min(twins)]
        more = f" (and {len(twins) - 1} more of its pictures)" if len(twins) > 1 else ""
        raise InputError(
            f"{general.file}: its picture {first} looks like one of val or test{more}; take it out there"
        )


def _too_few(general: General, wanted: int, others: int) -> str:
    count = len(general.usable)
    reasons = "".join(f"; left out: {number} {reason}" for reason, number in general.left_out.items())
    possible = math.floor(1000 * count / (count + others)) / 1000
    remedy = f"the largest share possible is {possible:g}" if possible else "name another file"
    return (
        f"{general.file}: {wanted} record(s) make a share of {general.share:g} beside {others}, and {count} "
        f"can be used; {remedy}{reasons}"
    )


def _write_images(
    general: General, names: Sequence[str], recipe: Recipe, store: ImageStore, workers: int
) -> dict[str, Prepared]:
    """Name in the file -> the picture, written whole. InputError naming a damaged one, after trying all."""
    whole = recipe.model_copy(update={"unit": "picture"})

    def write(name: str) -> Prepared | InputError:
        assert general.image_folder is not None
        image = AnnotatedImage(inside(general.image_folder, name), name)
        try:
            return prepare(image, whole, {}, store)
        except InputError as error:
            return error

    pool = ThreadPoolExecutor(workers)
    try:
        results = track(
            pool.map(write, names), "blended", len(names), console=Console(stderr=True), transient=True
        )
        written = dict(zip(names, results, strict=True))
    finally:
        pool.shutdown(cancel_futures=True)
    errors = [result for result in written.values() if isinstance(result, InputError)]
    if errors:
        more = f" (and {len(errors) - 1} more of {general.file})" if len(errors) > 1 else ""
        raise InputError(f"{errors[0]}{more}")
    prepared = {name: item for name, item in written.items() if isinstance(item, Prepared)}
    store.remember((item.digest, item.known) for item in prepared.values())
    return prepared


def _blended(general: General, position: int, record: Record, written: dict[str, str]) -> Record:
    return Record(
        id=f"{TASK}-{position:07d}",
        image=written[record.images[0]] if record.images else None,
        conversations=record.conversations,
        # Nothing is known of what its words of direction speak of: they are not to be turned with a picture.
        meta={"task": TASK, "source": f"{general.file.name}#{position}", "flip": False},
    )

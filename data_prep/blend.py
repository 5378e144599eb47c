"""Blend general conversations into the training records, so that a tuned model keeps its general abilities.

`convert --blend FILE.json --blend-image-folder DIR --blend-share 0.2` draws records of other LLaVA JSON (a
part of LLaVA's own mix, say) into train.json. The share is of the resulting train records. Their images are
processed as all others are: re-encoded and named by their content. Their ids are made anew. An image that
looks like one of val or test is refused, and so is a made one that says it was made of one of them.
"""

from __future__ import annotations

import argparse
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from data_prep.annotations import AnnotatedImage
from data_prep.images.prepare import Preparation, prepare_images
from data_prep.images.sharing import Workers
from data_prep.images.store import ImageStore
from data_prep.images.units import PreparedImage
from data_prep.recipe.schema import Recipe
from data_prep.splits.twins import find_twins
from llava.common.errors import InputError
from llava.common.files import inside, sha256, write_json_list
from llava.common.json_stream import stream_records
from llava.common.records import Record, is_synthetic

TASK = "general"


@dataclass(frozen=True)
class BlendFile:
    """A file of general conversations.

    `usable` are the positions of the records that can be drawn, `left_out` counts the others by reason.
    """

    file: Path
    image_folder: Path | None
    share: float
    usable: Sequence[int]
    left_out: Counter[str] = field(default_factory=Counter)


def open_blend_file(args: argparse.Namespace) -> BlendFile | None:
    """Return the file that the --blend options name, None if they name none.

    The file is read once, but no image. A record that does not follow LLaVA's rules, has several images or
    one that does not exist is left out. InputError for options that do not go together and a file that is not
    JSON.
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
    existing: dict[str, bool] = {}
    for position, (_, value) in enumerate(stream_records(args.blend)):
        if reason := _unusable(_parse_record(value), folder, existing):
            left_out[reason] += 1
        else:
            usable.append(position)
    return BlendFile(args.blend, folder, share, usable, left_out)


def _unusable(record: Record | None, folder: Path | None, existing: dict[str, bool]) -> str | None:
    """Return why a record cannot be drawn, as a plural for counts; None if it can."""
    if record is None:
        return "records that do not follow LLaVA's rules"
    if len(record.images) > 1:
        # One column of names and of lists is more than `datasets` and the tools built on it read.
        return "records with several pictures"
    if record.images and folder is None:
        return "records with pictures (no --blend-image-folder)"
    if not all(_image_exists(folder, name, existing) for name in record.images):
        return "records whose picture is absent"
    return None


def _parse_record(value: object) -> Record | None:
    """Return a record without its id, and of its meta only how its images were made; None if it does not
    follow LLaVA's rules."""
    if isinstance(value, dict):  # their ids are not kept, so any will do: some mixes have numbers or none
        value = {**value, "id": str(value.get("id", "")), "meta": _made_meta(value.get("meta"))}
    try:
        record = Record.model_validate(value)
        for turn in record.conversations:
            turn.value.encode()
    except (ValidationError, UnicodeEncodeError):
        return None
    return record


def _made_meta(meta: object) -> dict[str, Any]:
    """Return what a record's meta says of how its images were made; nothing for a camera's."""
    if not isinstance(meta, dict) or not is_synthetic(meta):
        return {}
    parents = meta.get("parents")
    return {
        "synthetic": True,
        **({"method": meta["method"]} if isinstance(meta.get("method"), str) else {}),
        "parents": [parent for parent in parents if isinstance(parent, str)]
        if isinstance(parents, list)
        else [],
    }


def _image_exists(folder: Path | None, name: str, known: dict[str, bool]) -> bool:
    """Return whether the image folder has a file of that name; `known` remembers the answers."""
    if name not in known:
        try:
            known[name] = folder is not None and inside(folder, name).is_file()
        except (InputError, OSError, ValueError):  # outside the folder, or no name a file can have
            known[name] = False
    return known[name]


def blend(
    blend_file: BlendFile,
    folder: Path,
    recipe: Recipe,
    store: ImageStore,
    seed: int,
    workers: Workers,
    held_out: Sequence[bytes],
    held_out_files: Set[str] = frozenset(),
) -> dict[str, Any]:
    """Add records of `blend_file` to `folder`/train.json, and their images to `store`.

    To be called when train.json and all other images are written, as records are added up to a share. The
    same `seed`, file and number of train records draw the same records.

    Args:
        blend_file: The records to draw from.
        folder: The output folder.
        recipe: Says how images are written and which are copies.
        store: Writes the images of the output.
        seed: Of the draw.
        workers: Threads that write images, or a cluster.
        held_out: The fingerprints of the source images of val and test: none of them, nor a copy by the
            recipe's rule, may come back as a training image.
        held_out_files: The SHA-256 of the files of these images: no image made of one may.

    Returns:
        The manifest's entry about the blend.

    Raises:
        InputError: There are too few records (it names the largest possible share), an image is damaged, or
            val or test hold it.
    """
    train = folder / "train.json"
    records = _draw(blend_file, sum(1 for _ in stream_records(train)), seed)
    _check_parents(blend_file, records, held_out_files)
    names = sorted({name for record in records.values() for name in record.images})
    prepared = _write_images(blend_file, names, recipe, store, workers)
    _check_held_out(blend_file, prepared, held_out, recipe.group.twins or 0)
    written = {name: item.units[0].image for name, item in prepared.items()}
    blended = (_blended(blend_file, position, record, written) for position, record in records.items())
    write_json_list(train, chain((value for _, value in stream_records(train)), blended))
    left_out = dict(sorted(blend_file.left_out.items()))
    reasons = "".join(f"; left out: {number} {reason}" for reason, number in left_out.items())
    print(
        f"{blend_file.file}: {len(records)} of {len(blend_file.usable)} records blended into train{reasons}"
    )
    return {
        "file": str(blend_file.file),
        "sha256": sha256(blend_file.file),
        "share": blend_file.share,
        "records": len(records),
        "pictures": sorted(set(written.values())),
        "left_out": left_out,
    }


def _draw(blend_file: BlendFile, others: int, seed: int) -> dict[int, Record]:
    """Draw records beside `others` records of train. Returns them by their positions in the file."""
    wanted = round(blend_file.share * others / (1 - blend_file.share))
    if wanted > len(blend_file.usable):
        raise InputError(_too_few(blend_file, wanted, others))
    drawn = set(random.Random(f"{seed}/blend").sample(blend_file.usable, wanted))
    return {
        position: record
        for position, (_, value) in enumerate(stream_records(blend_file.file))
        if position in drawn and (record := _parse_record(value)) is not None
    }


def _check_held_out(
    blend_file: BlendFile, prepared: Mapping[str, PreparedImage], held_out: Sequence[bytes], within: int
) -> None:
    """Raise an InputError if an image looks like a held-out one.

    Args:
        blend_file: For the message.
        prepared: The images by their names in the file.
        held_out: The fingerprints of the images of val and test.
        within: In how many bits hashes of copies differ at most.
    """
    fingerprints = [*held_out, *(item.fingerprint for item in prepared.values())]
    sides = np.arange(len(fingerprints)) >= len(held_out)
    first, second, _ = find_twins(fingerprints, within, sides.astype(np.int64))
    # A pair's later image is of the blend file if it lies behind the held-out ones.
    across = (first < len(held_out)) & (second >= len(held_out))
    duplicates = set((second[across] - len(held_out)).tolist())
    if duplicates:
        first = list(prepared)[min(duplicates)]
        more = f" (and {len(duplicates) - 1} more of its pictures)" if len(duplicates) > 1 else ""
        raise InputError(
            f"{blend_file.file}: its picture {first} looks like one of val or test{more}; take it out there"
        )


def _check_parents(blend_file: BlendFile, records: Mapping[int, Record], held_out: Set[str]) -> None:
    """Raise an InputError if an image of a record, by its meta, was made of a held-out file (SHA-256)."""
    made = [place for place, record in records.items() if held_out & set(record.meta.get("parents", ()))]
    if made:
        more = f" (and those of {len(made) - 1} more)" if len(made) > 1 else ""
        raise InputError(
            f"{blend_file.file}: the picture of its record {min(made)} was made of one of val or test{more}; "
            "take it out there"
        )


def _too_few(blend_file: BlendFile, wanted: int, others: int) -> str:
    """Return the message for fewer usable records than `wanted` beside `others` records of train."""
    count = len(blend_file.usable)
    reasons = "".join(f"; left out: {number} {reason}" for reason, number in blend_file.left_out.items())
    possible = math.floor(1000 * count / (count + others)) / 1000
    remedy = f"the largest share possible is {possible:g}" if possible else "name another file"
    return (
        f"{blend_file.file}: {wanted} record(s) make a share of {blend_file.share:g} beside {others}, "
        f"and {count} can be used; {remedy}{reasons}"
    )


def _write_images(
    blend_file: BlendFile, names: Sequence[str], recipe: Recipe, store: ImageStore, workers: Workers
) -> dict[str, PreparedImage]:
    """Write images to `store`, each as a whole.

    Args:
        blend_file: Says where the images are.
        names: Their names in the file.
        recipe: Says how images are written; its unit is not used.
        store: Writes them.
        workers: Threads, or a cluster.

    Returns:
        The images by their names in the file.

    Raises:
        InputError: Images are damaged; it names the first and counts the others, after trying all.
    """
    whole_images = recipe.model_copy(update={"unit": "picture"})

    folder = blend_file.image_folder or Path()  # None where no record has an image
    images = [AnnotatedImage(inside(folder, name), name) for name in names]
    results = prepare_images(images, Preparation(whole_images, {}, store), "blended", workers)
    errors = [result for result in results if isinstance(result, str)]
    if errors:
        more = f" (and {len(errors) - 1} more of {blend_file.file})" if len(errors) > 1 else ""
        raise InputError(f"{errors[0]}{more}")
    prepared = {
        name: item for name, item in zip(names, results, strict=True) if isinstance(item, PreparedImage)
    }
    store.add_to_cache((item.digest, item.cached) for item in prepared.values())
    return prepared


def _blended(blend_file: BlendFile, position: int, record: Record, written: dict[str, str]) -> Record:
    return Record(
        id=f"{TASK}-{position:07d}",
        image=written[record.images[0]] if record.images else None,
        conversations=record.conversations,
        # Which image side its words of direction refer to is unknown: a flip could not turn them along.
        meta={"task": TASK, "source": f"{blend_file.file.name}#{position}", "flip": False, **record.meta},
    )

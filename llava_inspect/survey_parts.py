"""Prepares the photos of a survey as a recipe does those to train on: scaled down, or cut into tiles."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.progress import track

from data_prep.images.decode import decoded
from data_prep.images.tiles import grid
from data_prep.images.units import encode_part
from data_prep.recipe.schema import Recipe
from eval.answering.processes import join_process_group
from eval.survey.photos import READER_THREADS
from eval.survey.sightings import Part
from llava.common.boxes import Box
from llava.common.errors import InputError
from llava.common.files import atomic_path
from llava.common.images import upright_size_at
from llava.common.photo_cache import photo_at
from llava.common.remote import facts

_PARTS = ".parts"


def cut_into_parts(
    photos: Mapping[str, Path], recipe: Recipe, output: Path, device: str | None
) -> list[Part]:
    """Return what is asked about: each photo, or with `unit: tile` its tiles.

    They have the pixels that training and calibration pictures have: scaled down and encoded as `convert`
    does. They are written to a folder in `output` until `remove_parts`. Several processes (see
    `join_process_group`, which takes `device`) share the work. A part that is there already is not made
    again. A photo that cannot be read is asked about as it is, which says why it cannot. Of a photo at an
    address, each process looks at the size, and one fetches it.
    """
    folder = output / _PARTS
    with ThreadPoolExecutor(READER_THREADS) as pool:
        made = pool.map(lambda name, path: _parts_of(name, path, recipe, folder), photos, photos.values())
        parts = list(made)
    processes = join_process_group(device)
    mine = parts[processes.rank :: processes.world_size]
    with ThreadPoolExecutor(READER_THREADS) as pool:
        paths = list(photos.values())[processes.rank :: processes.world_size]
        writing = pool.map(lambda path, parts_of_it: _write_parts(path, parts_of_it, recipe), paths, mine)
        console = Console(stderr=True)
        quiet = processes.rank > 0 or not console.is_terminal
        for _ in track(
            writing, "preparing photos", len(paths), console=console, transient=True, disable=quiet
        ):
            pass
    processes.barrier()
    whole = [Part(name, name, path) for name, path in photos.items()]
    written = (all(part.path.exists() for part in tiles) for tiles in parts)
    return [
        part
        for tiles, photo, is_written in zip(parts, whole, written, strict=True)
        for part in (tiles if is_written else [photo])
    ]


def remove_parts(output: Path) -> None:
    """Delete what was written, when nothing is asked about it any more."""
    shutil.rmtree(output / _PARTS, ignore_errors=True)


def _parts_of(name: str, path: Path, recipe: Recipe, folder: Path) -> list[Part]:
    try:
        height, width = upright_size_at(path)
        state = facts(path)
    except (InputError, OSError):
        return [Part(name, name, path)]

    def file_of(crop: Box | None) -> Path:
        key = repr((name, *state, crop, recipe.pictures.model_dump()))
        return folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.jpg"

    whole = Part(name, name, file_of(None))
    tiles = grid((width, height), recipe.tiles) if recipe.unit == "tile" else []
    if len(tiles) < 2:
        return [whole]
    made = [whole] if recipe.tiles.whole else []
    for tile in tiles:
        x1, y1, x2, y2 = map(round, tile)
        made.append(Part(f"{name} (x {x1} to {x2}, y {y1} to {y2})", name, file_of(tile), tile))
    return made


def _write_parts(path: Path, parts: Sequence[Part], recipe: Recipe) -> None:
    missing = [part for part in parts if part.path != path and not part.path.exists()]
    if not missing:
        return
    try:
        with decoded(photo_at(path)) as opened:
            for part in missing:
                crop = part.crop or (0, 0, *opened.image.size)
                with atomic_path(part.path) as temporary:
                    temporary.write_bytes(encode_part(opened.image, crop, recipe))
    except InputError:  # its header could be read, its pixels cannot
        return

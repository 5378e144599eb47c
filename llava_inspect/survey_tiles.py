"""Cuts the photos of a survey into tiles, as a recipe does with those that it trains on."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from data_prep.images.decode import decoded
from data_prep.images.tiles import grid
from data_prep.images.units import encode_part
from data_prep.recipe.schema import Recipe
from eval.answering.processes import join_process_group
from eval.survey.photos import READER_THREADS
from eval.survey.sightings import Part
from llava.common.errors import InputError
from llava.common.files import atomic_path
from llava.common.images import upright_size

_TILES = ".tiles"


def cut_into_parts(
    photos: Mapping[str, Path], recipe: Recipe, output: Path, device: str | None
) -> list[Part]:
    """Return what is asked about: the photos, or with `unit: tile` their tiles, which are written to a folder
    in `output` until `remove_tiles`.

    Several processes (see `join_process_group`, which takes `device`) share the work. A tile that is there
    already is not cut again. A photo that cannot be read stays whole: asking about it says why.
    """
    if recipe.unit != "tile":
        return [Part(name, name, path) for name, path in photos.items()]
    folder = output / _TILES
    parts = [_parts_of(name, path, recipe, folder) for name, path in photos.items()]
    processes = join_process_group(device)
    mine = parts[processes.rank :: processes.world_size]
    with ThreadPoolExecutor(READER_THREADS) as pool:
        paths = list(photos.values())[processes.rank :: processes.world_size]
        list(pool.map(lambda path, tiles: _write_tiles(path, tiles, recipe), paths, mine))
    processes.barrier()
    return [part for tiles in parts for part in tiles]


def remove_tiles(output: Path) -> None:
    """Delete the tiles, when nothing is asked about them any more."""
    shutil.rmtree(output / _TILES, ignore_errors=True)


def _parts_of(name: str, path: Path, recipe: Recipe, folder: Path) -> list[Part]:
    whole = Part(name, name, path)
    try:
        height, width = upright_size(path)
        changed = path.stat().st_mtime_ns
    except (InputError, OSError):
        return [whole]
    tiles = grid((width, height), recipe.tiles)
    if len(tiles) == 1:
        return [whole]
    made = [whole] if recipe.tiles.whole else []
    for tile in tiles:
        x1, y1, x2, y2 = map(round, tile)
        key = repr((name, changed, tile, recipe.pictures.model_dump()))
        file = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.jpg"
        made.append(Part(f"{name} (x {x1} to {x2}, y {y1} to {y2})", name, file, tile))
    return made


def _write_tiles(path: Path, parts: Sequence[Part], recipe: Recipe) -> None:
    missing = [part for part in parts if part.crop is not None and not part.path.exists()]
    if not missing:
        return
    try:
        with decoded(path) as opened:
            for part in missing:
                assert part.crop is not None
                with atomic_path(part.path) as temporary:
                    temporary.write_bytes(encode_part(opened.image, part.crop, recipe))
    except InputError:  # its header could be read, its pixels cannot; the register says so
        return

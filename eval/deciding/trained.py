"""Finds out whether calibration pictures were trained on: a model knows those, and a decision made with them
would promise too much. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from llava.common.errors import InputError
from llava.common.files import read_json_list, sha256
from llava.common.records import Record
from llava.model.run_dir import RunInfo, read_run_info


def picture_hashes(names: Iterable[str], folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each picture's file by its name below `folder`; InputError if one is missing."""
    hashes = {}
    for name in sorted(set(names)):
        if not (folder / name).is_file():
            raise InputError(f"{folder} does not hold {name}; --image-folder says where the pictures are")
        hashes[name] = sha256(folder / name)
    return hashes


def refuse_trained(run: Path, pictures: Mapping[str, str], beside: Path) -> list[str]:
    """Raise InputError if a picture was trained on, or chosen a checkpoint by.

    Args:
        run: The run directory, whose run.json knows the hashes of its data.
        pictures: The hash of each calibration picture by its name.
        beside: A folder to look for the data in, where they are not where the training read them.

    Returns:
        What was not looked at, in words: data files, or pictures of them, that are not there any more or are
        others now.
    """
    info = read_run_info(run)
    names = {digest: name for name, digest in pictures.items()}
    unknown = []
    for path, digest in info.data.items():
        found = next(
            (file for file in (Path(path), beside / Path(path).name) if _is_file_of(file, digest)), None
        )
        if found is None:
            unknown.append(path)
            continue
        there, gone = _pictures_of(found, info)
        if gone:
            unknown.append(f"{gone:,} picture(s) of {path}")
        for picture in there:
            if (name := names.get(sha256(picture))) is not None:
                raise InputError(
                    f"{name} was trained on ({found}, by {run}): a decision needs pictures that the model "
                    "does not know; let `convert` make them, with splits.calibration=0.2, and train again"
                )
    return unknown


def _is_file_of(path: Path, digest: str) -> bool:
    return path.is_file() and sha256(path) == digest


def _pictures_of(records: Path, info: RunInfo) -> tuple[list[Path], int]:
    """Return the files of the records' pictures, in the run's folder or beside the records, and how many are
    in neither."""
    folders = (Path(str(info.config.get("image_folder"))), records.parent)
    names = {name for record in read_json_list(records, Record) for name in record.images}
    found = []
    for name in sorted(names):
        found += [folder / name for folder in folders if (folder / name).is_file()][:1]
    return found, len(names) - len(found)

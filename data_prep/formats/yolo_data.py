"""The data sets of a YOLO folder: what `data.yaml`, or a list of names, says of classes and splits.

The format: https://docs.ultralytics.com/datasets/detect/ (`path`, `train`, `val`, `test`, `names`), of pose
data sets also `kpt_shape`; darknet and labelImg write one name a line into `obj.names` or `classes.txt`.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

import yaml

from data_prep.annotations import AnnotatedSource
from data_prep.formats.outlines import number
from data_prep.source_folder import SourceFolder, Split
from llava.common.errors import InputError
from llava.common.files import read_text

NAME_LISTS = {"classes.txt", "obj.names", "_darknet.labels"}
_YAML_NAMES = {"data", "dataset"}
# Any of them beside `names` makes a YAML file of some other name one of YOLO's.
_YAML_KEYS = {"train", "val", "test", "path", "nc"}
_SPLIT_KEYS: dict[str, Split] = {"train": "train", "val": "val", "valid": "val", "test": "test"}


@dataclass(frozen=True)
class DataSet:
    """What a `data.yaml` or a list of names says. `keypoints`: numbers per object after its box;
    `pictures`: the folders and lists of pictures of each split, as written."""

    file: Path
    names: dict[int, str]
    keypoints: int = 0
    path: str = ""
    images: dict[Split, list[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_data_yaml(file: Path) -> DataSet | None:
    """A `data.yaml`; None for a YAML file of some other kind. InputError naming the file if it is not YAML
    or its names are neither a list nor numbered."""
    try:
        # BaseLoader leaves every value as it is written: a class may be called `no` or `1e3`.
        data = yaml.load(read_text(file), yaml.BaseLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(data, dict) or not data.get("names"):
        return None
    if file.stem.casefold() not in _YAML_NAMES and not _YAML_KEYS & data.keys():
        return None
    names = data["names"]
    items = list(enumerate(names)) if isinstance(names, list) else []
    if isinstance(names, dict):
        items = [(_index(key), name) for key, name in names.items()]
    if not items or not all(key >= 0 and isinstance(name, str) and name.strip() for key, name in items):
        raise InputError(f"{file}: `names` must be a list of names or names by number (0: insulator)")
    notes = []
    if isinstance(data.get("nc"), str) and data["nc"] != str(len(items)):
        notes.append(f"{file}: nc is {data['nc']!r}, but there are {len(items)} names; the names count")
    images: dict[Split, list[str]] = defaultdict(list)
    for key, split in _SPLIT_KEYS.items():
        entries = data.get(key)
        for entry in entries if isinstance(entries, list) else [entries]:
            if isinstance(entry, str) and entry:
                images[split].append(entry)
    path = data["path"] if isinstance(data.get("path"), str) else ""
    plain = {key: name.strip() for key, name in items}
    return DataSet(file, plain, _keypoints(file, data.get("kpt_shape")), path, dict(images), tuple(notes))


def _index(text: object) -> int:
    """A class index, -1 if it is none."""
    value = number(text)
    return int(value) if value is not None and value.is_integer() else -1


def _keypoints(file: Path, shape: object) -> int:
    if shape is None:
        return 0
    sides = [_index(side) for side in shape] if isinstance(shape, list) else []
    if len(sides) != 2 or sides[0] < 1 or sides[1] not in (2, 3):
        raise InputError(f"{file}: `kpt_shape` must be [number of keypoints, 2 or 3]")
    return sides[0] * sides[1]


def read_names(file: Path) -> DataSet:
    """The class names of a darknet list, one a line. InputError naming the file and an empty line."""
    lines = [line.strip() for line in read_text(file).rstrip().split("\n")]
    if "" in lines:
        raise InputError(f"{file}, line {lines.index('') + 1}: a class without a name")
    return DataSet(file, dict(enumerate(lines)))


def names_classes(path: Path) -> bool:
    """Whether a file seems to name classes, by its own name or the keys of its YAML."""
    if path.name.casefold() in NAME_LISTS:
        return True
    if path.suffix.lower() not in (".yaml", ".yml"):
        return False
    try:
        with path.open("rb") as file:
            return re.search(rb"(?m)^['\"]?names['\"]?\s*:", file.read(1 << 16)) is not None
    except OSError:
        return False


def find_data_sets(folder: SourceFolder) -> tuple[list[DataSet], list[str]]:
    """Each data set below the folder, and what is to be noted about them.

    InputError if none names the classes. `data.yaml` comes before lists of names, which annotation tools
    leave behind.
    """
    yamls = (read_data_yaml(path) for path in folder.named(".yaml", ".yml") if names_classes(path))
    found = [data_set for data_set in yamls if data_set is not None]
    lists = [read_names(path) for path in folder.files if path.name.casefold() in NAME_LISTS]
    notes = [note for data_set in found for note in data_set.notes]
    if not found and not lists:
        raise InputError(
            f"{folder.root}: YOLO labels without class names; add a data.yaml with `names`, or a classes.txt"
        )
    for data_set in lists if found else []:
        if all(data_set.names != other.names for other in found):
            notes.append(f"{data_set.file}: differs from {found[0].file}, which is used")
    return found or lists, notes


def data_set_of(label: Path, data_sets: list[DataSet]) -> DataSet:
    """The nearest above the label file, else the only one. InputError where two would differ."""
    above = [item for item in data_sets if item.file.parent in label.parents]
    depth = max((len(item.file.parts) for item in above), default=0)
    nearest = [item for item in above if len(item.file.parts) == depth] or data_sets
    for other in nearest[1:]:
        if (other.names, other.keypoints) != (nearest[0].names, nearest[0].keypoints):
            raise InputError(
                f"{label}: its classes could be those of {nearest[0].file} or of {other.file}; remove one"
            )
    return nearest[0]


def set_splits(source: AnnotatedSource, folder: SourceFolder, data_sets: Iterable[DataSet]) -> list[str]:
    """Set the splits that `data.yaml` gives to pictures; returns what is to be noted."""
    notes: list[str] = []
    named: dict[Path, set[Split]] = defaultdict(set)
    for data_set in data_sets:
        for split, entries in data_set.images.items():
            for entry in entries:
                images = _listed(data_set, entry, folder, notes)
                if not images:
                    notes.append(f"{data_set.file}: {split} is {entry!r}, where no pictures are; passed over")
                for image in images:
                    named[image].add(split)
    several = 0
    for item in source.images:
        splits = named.get(item.file, set())
        if len(splits) == 1:
            item.split = min(splits)
        several += len(splits) > 1
    if several:
        notes.append(f"{several} picture(s) are in several splits of data.yaml; that is not used")
    return notes


def _listed(data_set: DataSet, entry: str, folder: SourceFolder, notes: list[str]) -> list[Path]:
    """The pictures that `train: entry` in a data.yaml speaks of: those below a folder, or in a text file."""
    here = data_set.file.parent
    written = PureWindowsPath(entry).as_posix()
    base = PureWindowsPath(data_set.path).as_posix()
    # Roboflow writes ../train/images for train/images; paths of another machine lead nowhere.
    places = [here / base / written, here / written, here / written.removeprefix("../")]
    parents = {path.parent: _plain(path.parent) for path in folder.images}
    lists = {_plain(path): path for path in folder.named(".txt")}
    for place in map(_plain, places):
        if place in lists:
            return _in_list(lists[place], folder, notes)
        inside = {parent for parent, full in parents.items() if place == full or place in full.parents}
        if inside:
            return [image for image in folder.images if image.parent in inside]
    return []


def _plain(path: Path) -> Path:
    """`path` from the root and without `..`, made without a look at the disk: it may lead anywhere."""
    return Path(os.path.normpath(path.absolute()))


def _in_list(file: Path, folder: SourceFolder, notes: list[str]) -> list[Path]:
    """The pictures that a list names, a path a line; those that are not here are passed over and noted."""
    images = []
    lost: list[str] = []
    for line in filter(None, map(str.strip, read_text(file).split("\n"))):
        try:
            images.append(folder.image_of(file, line))
        except InputError:
            lost.append(line)
    if lost:
        notes.append(
            f"{file}: {len(lost)} line(s) that name no picture here passed over, such as {lost[0]!r}"
        )
    return images

"""Read the data sets of a YOLO folder: the classes and splits that `data.yaml`, or a list of names, states.

The format: https://docs.ultralytics.com/datasets/detect/ (`path`, `train`, `val`, `test`, `names`), of pose
data sets also `kpt_shape`; darknet and labelImg write one name a line into `obj.names`, `classes.txt` or
`predefined_classes.txt`.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PureWindowsPath
from typing import Any

import yaml

from data_prep.annotations import AnnotatedSource
from data_prep.formats.fields import parse_number
from data_prep.formats.layout import images_of_list, set_listed_splits
from data_prep.source_folder import SourceFolder, Split
from llava.common.errors import InputError
from llava.common.files import read_text

_NAME_LISTS = {"classes.txt", "_darknet.labels"}
# labelImg's choice of names, which it saves no classes.txt without, and names that people give their lists.
_OTHER_LISTS = {"predefined_classes.txt", "class_names.txt", "classnames.txt", "class.txt", "names.txt"}
_OTHER_LISTS |= {"labels.txt", "label.txt", "obj_names.txt"}
_YAML_NAMES = {"data", "dataset"}
# Any of them beside `names` makes a YAML file of some other name one of YOLO's.
_YAML_KEYS = {"train", "val", "test", "path", "nc"}
_SPLIT_KEYS: dict[str, Split] = {"train": "train", "val": "val", "valid": "val", "test": "test"}


@dataclass(frozen=True)
class DataSet:
    """The content of a `data.yaml` or a list of names.

    `names` are those of the classes by their index; `keypoints` is how many numbers an object has after its
    box; `images` are the folders and lists of images of each split, as written, relative to `path`.
    """

    file: Path
    names: dict[int, str]
    keypoints: int = 0
    path: str = ""
    images: dict[Split, list[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @cached_property
    def indices(self) -> dict[str, int]:
        """The index of each class by its name in lower case, without names that are numbers."""
        names = {name.casefold(): index for index, name in self.names.items()}
        return {name: index for name, index in names.items() if parse_number(name) is None}


def read_data_yaml(file: Path) -> DataSet | None:
    """Read a `data.yaml`; None for a YAML file of some other kind.

    InputError naming the file if it is not YAML or its names are neither a list nor numbered.
    """
    try:
        # BaseLoader leaves every value as it is written: a class may be called `no` or `1e3`.
        data = yaml.load(read_text(file), yaml.BaseLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(data, dict) or not data.get("names"):
        return None
    if file.stem.casefold() not in _YAML_NAMES and not _YAML_KEYS & data.keys():
        return None
    names = _parse_names(file, data["names"])
    notes = []
    if isinstance(data.get("nc"), str) and data["nc"] != str(len(names)):
        notes.append(f"{file}: nc is {data['nc']!r}, but there are {len(names)} names; the names count")
    path = data["path"] if isinstance(data.get("path"), str) else ""
    keypoints = _parse_keypoints(file, data.get("kpt_shape"))
    return DataSet(file, dict(names), keypoints, path, _parse_splits(data), tuple(notes))


def _parse_names(file: Path, names: Any) -> list[tuple[int, str]]:
    """Return (index, name) of each class."""
    items = list(enumerate(names)) if isinstance(names, list) else []
    if isinstance(names, dict):
        items = [(_parse_index(key), name) for key, name in names.items()]
    if not items or not all(key >= 0 and isinstance(name, str) and name.strip() for key, name in items):
        raise InputError(f"{file}: `names` must be a list of names or names by number (0: insulator)")
    return [(key, name.strip()) for key, name in items]


def _parse_splits(data: dict[str, Any]) -> dict[Split, list[str]]:
    images: dict[Split, list[str]] = defaultdict(list)
    for key, split in _SPLIT_KEYS.items():
        entries = data.get(key)
        for entry in entries if isinstance(entries, list) else [entries]:
            if isinstance(entry, str) and entry:
                images[split].append(entry)
    return dict(images)


def _parse_index(text: object) -> int:
    """Return a class index, -1 if it is none."""
    value = parse_number(text)
    return int(value) if value is not None and value.is_integer() else -1


def _parse_keypoints(file: Path, shape: object) -> int:
    if shape is None:
        return 0
    sides = [_parse_index(side) for side in shape] if isinstance(shape, list) else []
    if len(sides) != 2 or sides[0] < 1 or sides[1] not in (2, 3):
        raise InputError(f"{file}: `kpt_shape` must be [number of keypoints, 2 or 3]")
    return sides[0] * sides[1]


def read_names(file: Path) -> DataSet:
    """Read the class names of a darknet list, one a line. InputError naming the file and an empty line."""
    lines = [line.strip() for line in read_text(file).rstrip().split("\n")]
    if "" in lines:
        raise InputError(f"{file}, line {lines.index('') + 1}: a class without a name")
    return DataSet(file, dict(enumerate(lines)))


def is_name_list(path: Path) -> bool:
    """Return whether a file is a list of names, by its own name (`classes.txt`, `obj.names`).

    `labels.txt` and its like may hold more, and are one if each line could be a name.
    """
    name = path.name.casefold()
    return name in _NAME_LISTS or name.endswith(".names") or (name in _OTHER_LISTS and _holds_names(path))


def _holds_names(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            lines = file.read(1 << 16).decode("utf-8-sig", errors="replace").strip().splitlines()
    except OSError:
        return False
    return all(re.search(r"[^\W\d]", line) and not re.search(r"[,;\t/\\]|\.\w+\b", line) for line in lines)


def names_classes(path: Path) -> bool:
    """Return whether a file seems to name classes, by its own name or the keys of its YAML."""
    if is_name_list(path):
        return True
    if path.suffix.lower() not in (".yaml", ".yml"):
        return False
    try:
        with path.open("rb") as file:
            return re.search(rb"(?m)^['\"]?names['\"]?\s*:", file.read(1 << 16)) is not None
    except OSError:
        return False


def find_data_sets(folder: SourceFolder) -> tuple[list[DataSet], list[str]]:
    """Return each data set below the folder, and notes on them.

    `data.yaml` comes before lists of names, which annotation tools leave behind. InputError if none names the
    classes.
    """
    yamls = (read_data_yaml(path) for path in folder.named(".yaml", ".yml") if names_classes(path))
    from_yaml = [data_set for data_set in yamls if data_set is not None]
    lists = _read_name_lists(folder)
    notes = [note for data_set in from_yaml for note in data_set.notes]
    if not from_yaml and not lists:
        raise InputError(
            f"{folder.root}: YOLO labels without class names; add a data.yaml with `names`, or a classes.txt"
        )
    for data_set in lists if from_yaml else []:
        if all(data_set.names != other.names for other in from_yaml):
            notes.append(f"{data_set.file}: differs from {from_yaml[0].file}, which is used")
    return from_yaml or lists, notes


def _read_name_lists(folder: SourceFolder) -> list[DataSet]:
    """Read all lists of names. labelImg's `predefined_classes.txt`, of which a data set may use none, and
    lists by names of one's own count only where there is no other."""
    files = [path for path in folder.files if is_name_list(path)]
    chosen = [path for path in files if path.name.casefold() not in _OTHER_LISTS]
    return [read_names(path) for path in chosen or files]


def data_set_of(label: Path, data_sets: list[DataSet]) -> DataSet:
    """Return the nearest data set above the label file, else the only one. InputError where two would
    differ."""
    above = [data_set for data_set in data_sets if data_set.file.parent in label.parents]
    depth = max((len(data_set.file.parts) for data_set in above), default=0)
    nearest = [data_set for data_set in above if len(data_set.file.parts) == depth] or data_sets
    for other in nearest[1:]:
        if (other.names, other.keypoints) != (nearest[0].names, nearest[0].keypoints):
            raise InputError(
                f"{label}: its classes could be those of {nearest[0].file} or of {other.file}; remove one"
            )
    return nearest[0]


def set_splits(source: AnnotatedSource, folder: SourceFolder, data_sets: Iterable[DataSet]) -> list[str]:
    """Set the splits that `data.yaml` gives to images. Returns notes."""
    notes: list[str] = []
    listed: dict[Path, set[Split]] = defaultdict(set)
    for data_set in data_sets:
        for split, entries in data_set.images.items():
            for entry in entries:
                images = _images_of_entry(data_set, entry, folder, notes)
                if not images:
                    notes.append(f"{data_set.file}: {split} is {entry!r}, where no pictures are; passed over")
                for image in images:
                    listed[image].add(split)
    return notes + set_listed_splits(source, listed)


def _images_of_entry(data_set: DataSet, entry: str, folder: SourceFolder, notes: list[str]) -> list[Path]:
    """Return the images that `train: entry` in a data.yaml lists.

    Args:
        data_set: The data.yaml.
        entry: The path of a folder, whose images count with those below, or of a text file.
        folder: All images.
        notes: Gets a note on lines of a text file that name no image.
    """
    parent = data_set.file.parent
    written = PureWindowsPath(entry).as_posix()
    base = PureWindowsPath(data_set.path).as_posix()
    # Roboflow writes ../train/images for train/images; paths of another machine lead nowhere.
    candidates = [parent / base / written, parent / written, parent / written.removeprefix("../")]
    image_folders = {path.parent: _normalize(path.parent) for path in folder.images}
    lists = {_normalize(path): path for path in folder.named(".txt")}
    for candidate in map(_normalize, candidates):
        if candidate in lists:
            return images_of_list(lists[candidate], folder, notes)
        inside = {path for path, full in image_folders.items() if candidate in (full, *full.parents)}
        if inside:
            return [image for image in folder.images if image.parent in inside]
    return []


def _normalize(path: Path) -> Path:
    """Return `path` from the root and without `..`, without access to the disk: it may lead anywhere."""
    return Path(os.path.normpath(path.absolute()))

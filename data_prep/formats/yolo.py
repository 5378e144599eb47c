"""YOLO labels: a text file per picture, a line per object, coordinates as shares of the picture.

The format (https://docs.ultralytics.com/datasets/detect/ and /segment/): `class cx cy width height` for a
box, `class x1 y1 x2 y2 x3 y3 ...` for an outline, with the class as an index into the `names` of `data.yaml`.
Labels lie in `labels/` as pictures lie in `images/`, or beside them. What real folders do to it: names in
`classes.txt` or `obj.names` (darknet), a confidence after the box (predictions), `data.yaml` with paths of
another machine or one folder too high (Roboflow), no file for a picture with nothing in it. Shares are of the
upright picture: its size comes from its header.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from data_prep.annotations import AnnotatedSource, Annotation, Shape, make_source
from data_prep.formats.layout import passed_over, require_images, set_groups_and_splits
from data_prep.formats.outlines import bounds, number, polygon_area
from data_prep.formats.sizes import image_size
from data_prep.formats.yolo_data import (
    NAME_LISTS,
    DataSet,
    data_set_of,
    find_data_sets,
    names_classes,
    set_splits,
)
from data_prep.source_folder import SourceFolder
from llava.common.boxes import Box
from llava.common.errors import InputError
from llava.common.files import read_text

NAME = "yolo"
# Text files that lie among labels and are none, unless a picture has their name.
_NO_LABELS = {"classes", "train", "val", "valid", "test", "notes", "readme"}
_FARTHEST = 2.0  # shares beyond this are pixels, not a box that reaches out of its picture
_DECIMALS = 2  # of pixels: six digits of a share say no more, and so the box is the one that was drawn
_SAMPLE = 20


@dataclass
class LabelFile:
    """The shapes of a label file in shares of the picture, what was put right, what its lines held beside."""

    shapes: dict[Shape, None] = field(default_factory=dict)  # ordered, and quick to look up
    notes: list[str] = field(default_factory=list)
    passed_over: set[str] = field(default_factory=set)


def read_labels(file: Path, data_set: DataSet) -> LabelFile:
    """Read one label file. InputError naming it and the line of anything but boxes and outlines of the
    classes of `data_set`."""
    labels = LabelFile()
    for row, line in enumerate(read_text(file).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{file}, line {row}"
        values = _line(line, data_set.keypoints)
        if values is None:
            raise InputError(
                f"{where}: neither a box (class cx cy width height) nor an outline (class x1 y1 x2 y2 ...) "
                f"of plain numbers"
            )
        index, shares = values
        name = data_set.names.get(index)
        if name is None:
            known = len(data_set.names)
            raise InputError(f"{where}: class {index} is not among the {known} names in {data_set.file}")
        far = [value for value in shares if abs(value) > _FARTHEST]
        if far:
            raise InputError(f"{where}: {far[0]:g} is no share of a picture; write 0..1, not pixels")
        box, area = _outline(shares)
        if len(shares) == 4:
            if (more := len(line.split()) - 5) > 0:
                labels.passed_over.add("a confidence, as predictions do" if more == 1 else "keypoints")
            if shares[2] < 0 or shares[3] < 0:
                labels.notes.append(f"{where} ({name!r}): negative width or height; put right")
        shape = Shape(name, box, area)
        if not (box[0] < box[2] and box[1] < box[3]):
            labels.notes.append(f"{where} ({name!r}): the box has no width or no height; left out")
        elif shape in labels.shapes:
            labels.notes.append(f"{where} ({name!r}): is there twice; kept once")
        else:
            labels.shapes[shape] = None
    return labels


def _line(line: str, keypoints: int = 0) -> tuple[int, list[float]] | None:
    """The class and the four numbers of a box or the six and more of an outline; None if it is neither."""
    values = [number(part) for part in line.split()]
    known = [value for value in values if value is not None]
    if len(known) < len(values) or len(known) < 5 or not known[0].is_integer():
        return None
    boxes = (5, 6, 5 + keypoints) if keypoints else (5, 6)
    if len(known) in boxes:
        return int(known[0]), known[1:5]
    return (int(known[0]), known[1:]) if len(known) % 2 and not keypoints else None


def _outline(shares: list[float]) -> tuple[Box, float | None]:
    if len(shares) == 4:
        cx, cy, width, height = shares
        return bounds([(cx - width / 2, cy - height / 2), (cx + width / 2, cy + height / 2)]), None
    points = list(zip(shares[::2], shares[1::2], strict=True))
    return bounds(points), polygon_area(points)


def _in_pixels(shape: Shape, size: tuple[int, int]) -> Shape:
    width, height = size
    x1, y1, x2, y2 = (
        round(share * side, _DECIMALS) for share, side in zip(shape.box, (width, height) * 2, strict=True)
    )
    return Shape(shape.name, (x1, y1, x2, y2), None if shape.area is None else shape.area * width * height)


class _Layout:
    """Which label files there are, and which picture each belongs to."""

    def __init__(self, folder: SourceFolder) -> None:
        self.folder = folder
        self._names = {name.casefold() for path in folder.images for name in (path.stem, path.name)}

    @cached_property
    def _images(self) -> dict[Path, dict[str, list[Path]]]:
        """Folder of pictures -> name or stem -> pictures."""
        found: dict[Path, dict[str, list[Path]]] = {}
        for image in self.folder.images:
            names = found.setdefault(image.parent, defaultdict(list))
            for name in {image.name.casefold(), image.stem.casefold()}:
                names[name].append(image)
        return found

    def label_files(self) -> tuple[list[Path], list[Path]]:
        """The text files that are labels, by their name or folder, and the others."""
        labels: list[Path] = []
        others: list[Path] = []
        for path in self.folder.named(".txt"):
            stem = path.stem.casefold()
            among_labels = _last(self._relative(path), "labels") is not None and stem not in _NO_LABELS
            (labels if stem in self._names or among_labels else others).append(path)
        return labels, others

    def _relative(self, label: Path) -> tuple[str, ...]:
        return label.relative_to(self.folder.root).parent.parts

    def image_of(self, label: Path) -> Path:
        """InputError if there is none, or several. Where a folder that goes with the label's own has
        pictures, the picture is not looked for elsewhere: its namesake there is another picture."""
        folders = [folder for folder in self.image_folders(label) if folder in self._images]
        for folder in folders:
            found = self._images[folder].get(label.stem.casefold(), [])
            if len(found) > 1:
                raise InputError(f"{label}: could belong to {found[0]} and {found[1].name}; rename one")
            if found:
                return found[0]
        if any(folder != self.folder.image_root for folder in folders):
            raise InputError(f"{label}: no picture named {label.stem!r} in {folders[0]}")
        return self.folder.image_of(label, label.stem)

    def image_folders(self, label: Path) -> list[Path]:
        """The folders of pictures that go with the label's own, the likeliest first."""
        root, parts = self.folder.image_root, self._relative(label)
        at = _last(parts, "labels")
        if at is None:
            return [root.joinpath(*parts)]
        above, below = root.joinpath(*parts[:at]), parts[at + 1 :]
        images = [above.joinpath(name, *below) for name in ("images", "Images", "IMAGES")]
        return [*images, above.joinpath(*below)]

    def mirrored(self, label: Path, image: Path) -> bool:
        """Whether the picture's folder has a tree of labels of its own, in which a missing file means a
        picture with nothing in it."""
        return label.parent != image.parent and image.parent in self.image_folders(label)


def _last(parts: tuple[str, ...], name: str) -> int | None:
    found = [index for index, part in enumerate(parts) if part.casefold() == name]
    return found[-1] if found else None


def detect(folder: SourceFolder) -> str | None:
    """Why the folder looks like YOLO, None if it does not."""
    labels, _ = _Layout(folder).label_files()
    written = [path for path in labels if path.stat().st_size][:_SAMPLE]
    if not labels or not all(map(_looks_right, written)):
        return None
    named = any(map(names_classes, folder.files))
    if not written and not named:
        return None
    return f"{len(labels)} label file(s) (*.txt)" + (" and the names of their classes" if named else "")


def _looks_right(path: Path) -> bool:
    """By its first line; an empty file says nothing against it."""
    try:
        with path.open("rb") as file:
            start = file.read(1 << 16).decode("utf-8-sig", errors="replace").lstrip()
    except OSError:
        return False
    line = start.split("\n", 1)[0]
    # With keypoints, of which only data.yaml tells, the count of numbers may be even.
    values = _line(line) or _line(line, max(1, len(line.split()) - 5))
    return not line or (values is not None and all(abs(value) <= _FARTHEST for value in values[1]))


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Every label file anywhere below the folder, joined with its picture.

    A picture without a label file, in a folder whose labels lie in a tree of their own, has nothing in it
    (Ultralytics' background pictures); the number of them is noted. Splits are those of `data.yaml`, else
    those of folder names. Returns the source and one line per problem; a caller that gets problems must not
    go on. InputError for a folder without labels, class names or pictures.
    """
    layout = _Layout(folder)
    labels, others = layout.label_files()
    if not labels:
        raise InputError(f"{folder.root}: no YOLO labels (*.txt named like a picture) in it or below")
    require_images(folder, f"{folder.root}: {len(labels)} label file(s)")
    data_sets, notes = find_data_sets(folder)
    problems: list[str] = []
    found: list[tuple[Path, Annotation]] = []
    mirrored: dict[Path, Path] = {}  # folder of pictures -> its folder of labels
    unused: dict[str, list[Path]] = defaultdict(list)
    for path in labels:
        try:
            labelled = read_labels(path, data_set_of(path, data_sets))
            image = layout.image_of(path)
            size = image_size(image) if labelled.shapes else None
        except InputError as error:
            problems.append(str(error))
            continue
        shapes = tuple(_in_pixels(shape, size) for shape in labelled.shapes) if size else ()
        found.append((image, Annotation(path, image.name, size, shapes, notes=tuple(labelled.notes))))
        if layout.mirrored(path, image):
            mirrored[image.parent] = path.parent
        for what in sorted(labelled.passed_over):
            unused[what].append(path)

    known = {image for image, _ in found}
    if twice := len(found) - len(known):
        notes.append(f"{twice} label file(s) belong to a picture that has another one; both are used")
    alone = [path for path in folder.images if path not in known and path.parent in mirrored]
    found += [(path, Annotation(mirrored[path.parent], path.name)) for path in alone]
    if alone:
        notes.append(
            f"{len(alone)} picture(s) without a label file are taken as pictures with nothing in them "
            f"(YOLO's backgrounds), for instance {folder.key(alone[0])}"
        )
    for what, files in unused.items():
        notes.append(f"{len(files)} label file(s) hold {what}, passed over; for instance {files[0]}")
    others = [path for path in others if path.name.casefold() not in NAME_LISTS]
    notes += passed_over(folder, others, "text file(s) that are no labels")
    source = make_source(folder, NAME, found)
    notes += set_splits(source, folder, data_sets)
    set_groups_and_splits(source, folder)
    return replace(source, notes=tuple(notes)), problems

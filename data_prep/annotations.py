"""What an annotation says, whatever format it came in: the shapes that every reader gives and all else uses.

A reader (data_prep/formats) turns files into a `Source` of `AnnotatedPicture`s without opening a picture;
`merge` then holds what several annotations say of one picture against the real, decoded picture.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PureWindowsPath
from typing import Literal

from llava.common.boxes import Box, area
from llava.common.errors import InputError
from llava.common.html.markup import readable

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".heic", ".heif"})
Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def split_in(words: Iterable[str]) -> Split | None:
    """The split that words such as folder names speak of (`valid`, `train2017`), None if none or several."""
    names = (re.sub(r"\d{4}$", "", word.casefold()) for word in words)
    found = {SPLIT_NAMES[name] for name in names if name in SPLIT_NAMES}
    return found.pop() if len(found) == 1 else None


class NoImageError(InputError):
    """No picture has the name that a file speaks of, or only one that must be another."""


@dataclass(frozen=True)
class Shape:
    """One annotated object: its class as written in the file and its box in pixels, x1 < x2, y1 < y2.

    `area` in pixels squared where the annotation outlines more than a box (a mask, a polygon), else None.
    """

    name: str
    box: Box
    area: float | None = None


@dataclass(frozen=True, slots=True)  # a table may hold a million
class Talk:
    """A conversation that the annotation itself holds: one or more (question, answer) pairs about the
    picture, texts that are not empty and hold no `<image>`. `language` is None where the annotation does not
    say."""

    turns: tuple[tuple[str, str], ...]
    task: str = "vqa"
    language: str | None = None


@dataclass(frozen=True)
class Annotation:
    """What one file says of one picture.

    `picture` is the picture's name as the file writes it, "" if it does not; `size` is (width, height) as it
    states, None where absent or zero. Boxes are ordered (x1 <= x2, y1 <= y2) but not yet held against the
    real picture. `labels` are classes of the picture as a whole, without a place.
    """

    file: Path
    image: str = ""
    size: tuple[float, float] | None = None
    shapes: tuple[Shape, ...] = ()
    labels: tuple[str, ...] = ()
    talks: tuple[Talk, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass
class AnnotatedImage:
    """A picture and all that speaks of it. `key` is its path below the source, without suffix; `group` and
    `split` are what the source itself says of them, None where it says nothing."""

    file: Path
    key: str
    annotations: list[Annotation] = field(default_factory=list)
    group: str | None = None
    split: Split | None = None


@dataclass(frozen=True)
class Source:
    """What a folder of annotated pictures holds, in the order of the pictures' keys. `unannotated` pictures
    are spoken of by nothing; `notes` tell what else was passed over or put right, a line each."""

    format: str
    images: tuple[AnnotatedImage, ...]
    unannotated: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Folder:
    """A source on disk: its files, hidden ones left out, sorted. Pictures may have a folder of their own.

    `misnamed` are files whose names are not UTF-8. They are not among the others: no JSON can name them.
    """

    root: Path
    files: tuple[Path, ...]
    image_root: Path
    image_files: tuple[Path, ...]
    misnamed: tuple[Path, ...] = ()

    @staticmethod
    def scan(root: Path, image_root: Path | None = None) -> Folder:
        """InputError if a folder is absent or its own name is not UTF-8."""
        for folder in (root, *([image_root] if image_root else [])):
            if not _is_utf8(str(folder)):
                raise InputError(f"{readable(str(folder))}: its name is not UTF-8; rename the folder")
        files, misnamed = _files_below(root)
        if image_root is None or image_root == root:
            return Folder(root, files, root, files, misnamed)
        images, more = _files_below(image_root)
        return Folder(root, files, image_root, images, tuple(dict.fromkeys((*misnamed, *more))))

    @property
    def naming_problems(self) -> list[str]:
        """A line for each file that is passed over because of its name."""
        return [f"{readable(str(path))}: its name is not UTF-8; rename it" for path in self.misnamed]

    def named(self, *suffixes: str) -> list[Path]:
        """The source's files with one of these suffixes (lower case, with the dot)."""
        return [path for path in self.files if path.suffix.lower() in suffixes]

    @cached_property
    def images(self) -> list[Path]:
        return [path for path in self.image_files if path.suffix.lower() in IMAGE_SUFFIXES]

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        names: dict[str, list[Path]] = defaultdict(list)
        for image in self.images:
            for name in {image.name.casefold(), image.stem.casefold()}:
                names[name].append(image)
        return names

    def key(self, image: Path) -> str:
        """The picture's path below its folder, without suffix."""
        return image.relative_to(self.image_root).with_suffix("").as_posix()

    @cached_property
    def _image_folders(self) -> set[tuple[str, ...]]:
        """The ends of the paths below `picture_root` of all folders with pictures, last part first."""
        folders = {image.parent.relative_to(self.image_root).parts for image in self.images}
        backwards = [tuple(part.casefold() for part in reversed(parts)) for parts in folders]
        return {parts[:count] for parts in backwards for count in range(1, len(parts) + 1)}

    def split_of(self, image: Path) -> Split | None:
        """The split that the picture's folders name."""
        return split_in(image.relative_to(self.image_root).parent.parts)

    def image_of(
        self, file: Path, *names: str, split: Split | None = None, owners: dict[Path, str] | None = None
    ) -> Path:
        """The picture that one of `names` (the likeliest first) written in `file` speaks of.

        Names are taken without regard to folder, case and suffix, as `/a/b.jpg`, `a\\b` or `b`; of several
        pictures with that name, the one that shares most of the written path, then has the split, then
        shares most of the file's own path (`a/images/1.jpg` belongs to `a/labels/1.xml`).

        A picture that is missing is not mistaken for its namesake elsewhere. A namesake is refused if its
        folders name another split than the written path and `split` (default: that of the file's folders)
        do, or if another folder of pictures fits the written path better; but never one beside a file of
        its name. A file that names many pictures notes in `owners` by which path it found each: a path that
        leads elsewhere (`day2/1.jpg` after `day1/1.jpg`, not after `1.jpg`) cannot lead to the same picture.

        NoPictureError if there is none, another InputError if there are still several.
        """
        split = split or split_in(file.relative_to(self.root).parent.parts)
        for name in names:
            written = PureWindowsPath(name)  # knows both / and \
            known_suffix = written.suffix.lower() in IMAGE_SUFFIXES
            for plain in dict.fromkeys((written.name, written.stem if known_suffix else written.name)):
                if candidates := self._by_name.get(plain.casefold()):
                    image = self._nearest(file, written, candidates, split)
                    if owners is not None:
                        _claim(owners, file, name, image)
                    return image
        also = " or ".join(dict.fromkeys(repr(PureWindowsPath(name).name) for name in names if name))
        raise NoImageError(f"{file}: no picture named {also} in {self.image_root} or below")

    def _nearest(
        self, file: Path, written: PureWindowsPath, candidates: list[Path], split: Split | None
    ) -> Path:
        tail = tuple(part.casefold() for part in reversed(written.parts[:-1]))
        reasons = [self._contradiction(file, tail, image, split) for image in candidates]
        fitting = [image for image, why in zip(candidates, reasons, strict=True) if why is None]
        if not fitting:
            found = candidates[0].relative_to(self.image_root).as_posix()
            raise NoImageError(f"{file}: no picture {str(written)!r}; found only {found}, {reasons[0]}")

        def rank(image: Path) -> tuple[int, bool, int]:
            same_split = split is not None and self.split_of(image) == split
            return _same_tail(tail, image), same_split, _shared(file.parent.parts, image.parent.parts)

        best = max(map(rank, fitting))
        nearest = [image for image in fitting if rank(image) == best]
        if len(nearest) > 1:
            names = " and ".join(path.relative_to(self.image_root).as_posix() for path in nearest[:2])
            raise InputError(f"{file}: could belong to {names}; give the pictures different names")
        return nearest[0]

    def _contradiction(
        self, file: Path, tail: tuple[str, ...], image: Path, split: Split | None
    ) -> str | None:
        """Why `picture` cannot be the one meant, None if it can. `tail`: the written folders, last first."""
        if image.parent == file.parent and image.stem.casefold() == file.stem.casefold():
            return None
        said = {split, split_in(tail)} - {None}
        theirs = self.split_of(image)
        if said and theirs and theirs not in said:
            return f"which is of the split {theirs}, not {min(map(str, said))}"
        fit = max((count for count in range(len(tail) + 1) if tail[:count] in self._image_folders), default=0)
        if fit > _same_tail(tail, image):
            return f"but there are pictures in a folder {'/'.join(reversed(tail[:fit]))!r} too"
        return None


def _files_below(root: Path) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """The files, and those whose names below `root` are not UTF-8."""
    if not root.is_dir():
        raise InputError(f"{root}: {'is a file; name its folder' if root.exists() else 'no such folder'}")
    files: list[Path] = []
    misnamed: list[Path] = []
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            (files if _is_utf8(str(name)) else misnamed).append(path)
    return tuple(files), tuple(misnamed)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that are none became lone surrogates
        return False
    return True


def _shared(first: Iterable[str], second: Iterable[str]) -> int:
    """How many of the leading parts are the same."""
    count = 0
    for ours, theirs in zip(first, second, strict=False):
        if ours != theirs:
            break
        count += 1
    return count


def _same_tail(tail: Iterable[str], image: Path) -> int:
    """How many of the written folders, last first, are those that the picture lies in."""
    return _shared(tail, (part.casefold() for part in reversed(image.parent.parts)))


def _claim(owners: dict[Path, str], file: Path, written: str, image: Path) -> None:
    """Note in `owners` that `file` calls `picture` by `written`; see `Folder.picture_of`."""
    owner = owners.setdefault(image, written)
    paths = [PureWindowsPath(name.casefold()) for name in (owner, written)]
    if any(path.suffix not in IMAGE_SUFFIXES for path in paths):
        paths = [path.with_suffix("") if path.suffix in IMAGE_SUFFIXES else path for path in paths]
    ends = zip(*(reversed(path.parts) for path in paths), strict=False)
    if any(theirs != ours for theirs, ours in ends):
        raise InputError(
            f"{file}: {owner!r} and {written!r} would both be {image}; one of them is missing, or write "
            f"them alike"
        )


def join(
    folder: Folder, format: str, said: Iterable[tuple[Path, Annotation]], notes: Iterable[str] = ()
) -> Source:
    """The source made of (picture, what is said of it) pairs, in the pictures' order."""
    found: dict[Path, AnnotatedImage] = {}
    for image, annotation in said:
        known = found.setdefault(image, AnnotatedImage(image, folder.key(image)))
        known.annotations.append(annotation)
    joined = tuple(found[image] for image in folder.images if image in found)
    alone = tuple(image for image in folder.images if image not in found)
    return Source(format, joined, alone, tuple(notes))


def merge(
    image: AnnotatedImage, upright: tuple[int, int], orientation: int = 1
) -> tuple[list[Shape], list[str]]:
    """All boxes of a picture in pixels of the upright picture, and a note per box that had to be fixed.

    `upright` is the picture's size (width, height) after the rotation that its EXIF `orientation` (1..8)
    asks for. An annotation that states the size before rotation was made by a tool that does not rotate: its
    boxes are turned along. A size of the same shape is a picture scaled after annotating: its boxes are
    scaled along. Any other size is an InputError. Where the size does not tell (none is stated, or that of a
    square or of a picture turned by half), boxes are taken as drawn on the upright picture, with a note.
    """
    shapes: list[Shape] = []
    notes: list[str] = []
    for annotation in image.annotations:
        notes.extend(annotation.notes)
        turned = orientation >= 5 and annotation.size == upright[::-1] and annotation.size != upright
        scale_x, scale_y = (1.0, 1.0) if turned else _scale(annotation, image.file, upright)
        if turned:
            notes.append(f"{annotation.file}: boxes drawn before EXIF rotation; turned along")
        elif annotation.shapes and _may_be_turned(annotation.size, upright, orientation):
            notes.append(
                f"{annotation.file}: its size does not tell if boxes were drawn before EXIF rotation"
            )
        if (scale_x, scale_y) != (1.0, 1.0):
            notes.append(f"{annotation.file}: made for {_by(annotation.size)}, scaled to {_by(upright)}")
        for shape in annotation.shapes:
            x1, y1, x2, y2 = _turn(shape.box, upright, orientation) if turned else shape.box
            scaled = (x1 * scale_x, y1 * scale_y, x2 * scale_x, y2 * scale_y)
            clipped = clip(scaled, upright)
            if clipped[2] - clipped[0] < 1 or clipped[3] - clipped[1] < 1:
                notes.append(f"{annotation.file}: box of {shape.name!r} is empty or outside; left out")
                continue
            if any(abs(a - b) > 1 for a, b in zip(scaled, clipped, strict=True)):
                notes.append(f"{annotation.file}: box of {shape.name!r} reached outside; clipped")
            # What is cut off at the picture's edge takes its share of the area along.
            kept = area(clipped) / area(scaled) * scale_x * scale_y
            merged = Shape(shape.name, clipped, None if shape.area is None else shape.area * kept)
            if merged not in shapes:
                shapes.append(merged)
    return shapes, notes


def clip(box: Box, size: tuple[float, float]) -> Box:
    """`box` held inside a picture of `size` (width, height)."""
    width, height = size
    x1, y1, x2, y2 = box
    return (
        min(max(x1, 0.0), width),
        min(max(y1, 0.0), height),
        min(max(x2, 0.0), width),
        min(max(y2, 0.0), height),
    )


def _turn(box: Box, upright: tuple[int, int], orientation: int) -> Box:
    """A box on the stored picture -> on the upright one, for the orientations that swap width and height
    (TIFF 6.0, tag 274: 5 transposed, 6 to be turned clockwise, 7 transversed, 8 counter-clockwise)."""
    width, height = upright
    y1, x1, y2, x2 = box
    if orientation in (6, 7):
        x1, x2 = width - x2, width - x1
    if orientation in (7, 8):
        y1, y2 = height - y2, height - y1
    return x1, y1, x2, y2


def _may_be_turned(size: tuple[float, float] | None, upright: tuple[int, int], orientation: int) -> bool:
    return orientation > 1 and (size is None or orientation < 5 or upright[0] == upright[1])


def _scale(annotation: Annotation, image: Path, upright: tuple[int, int]) -> tuple[float, float]:
    if annotation.size is None or annotation.size == upright:
        return 1.0, 1.0
    scale_x, scale_y = upright[0] / annotation.size[0], upright[1] / annotation.size[1]
    if abs(scale_x / scale_y - 1) > 0.02:
        raise InputError(
            f"{annotation.file}: made for a picture of {_by(annotation.size)}, "
            f"but {image.name} is {_by(upright)}"
        )
    return scale_x, scale_y


def _by(size: Iterable[float] | None) -> str:
    return "x".join(f"{value:g}" for value in size or ())


def plain_name(name: str) -> str:
    """A class name without regard to case, underscores, hyphens and spacing."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()

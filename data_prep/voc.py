"""Pascal VOC annotations as they are in the wild.

The format: one XML per picture, `<annotation>` with `<filename>`, `<size>` and an `<object>` per box
(The PASCAL Visual Object Classes Challenge 2012, development kit, section 3.1). What real folders do to
it: `<filename>` without extension or left over from another picture, a foreign `<path>`, several XML files
for one picture, fractional, reversed or outlying boxes, pictures kept anywhere. Coordinates are taken as
pixels from the left and top edge, as today's annotation tools write them; the 1-based origin of VOC's own
development kit would move a box by one pixel, which no answer shows.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from xml.parsers.expat import ErrorString, ExpatError

from llava.boxes import Box
from llava.errors import InputError

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True)
class Shape:
    """One annotated object: its class as written in the file and its box in pixels, x1 < x2, y1 < y2."""

    name: str
    box: Box


@dataclass(frozen=True)
class Annotation:
    """One XML file. `size` is (width, height) as it states, None where absent or zero.

    Boxes are ordered (x1 <= x2, y1 <= y2) but not yet held against the real picture.
    """

    file: Path
    filename: str
    size: tuple[float, float] | None
    shapes: tuple[Shape, ...]
    notes: tuple[str, ...]


@dataclass
class AnnotatedPicture:
    """A picture and every XML that speaks of it. `key` is its path below the source, without suffix."""

    file: Path
    key: str
    annotations: list[Annotation] = field(default_factory=list)


@dataclass(frozen=True)
class Source:
    """What a folder of annotated pictures holds, in the order of the pictures' keys. `passed_over` are XML
    files of another format."""

    pictures: tuple[AnnotatedPicture, ...]
    unannotated: tuple[Path, ...]
    passed_over: tuple[Path, ...]


class NotVocError(InputError):
    """A whole XML file of some other format."""


def read_annotation(file: Path) -> Annotation:
    """Read one XML file; InputError naming it if it is cut short, not VOC, or has an unreadable box."""
    root = _parse(file)
    if root.tag != "annotation":
        raise NotVocError(f"{file}: not Pascal VOC (its root is <{root.tag}>, expected <annotation>)")
    notes: list[str] = []
    shapes: list[Shape] = []
    for number, item in enumerate(root.findall("object"), start=1):
        name = (item.findtext("name") or "").strip()
        if not name:
            raise InputError(f"{file}: object {number} has no <name>")
        x1, y1, x2, y2 = _corners(file, number, item)
        if x1 > x2 or y1 > y2:
            notes.append(f"{file}: box {number} ({name}) was reversed; put right")
        shape = Shape(name, (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)))
        if shape in shapes:
            notes.append(f"{file}: box {number} ({name}) is there twice; kept once")
        else:
            shapes.append(shape)
    return Annotation(
        file, (root.findtext("filename") or "").strip(), _size(root), tuple(shapes), tuple(notes)
    )


def _parse(file: Path) -> ElementTree.Element:
    try:
        data = file.read_bytes()
        parser = ElementTree.XMLParser(target=_TreeBuilder())
        parser.feed(data)
        return parser.close()
    except _Doctype:
        raise InputError(f"{file}: has a DOCTYPE, which Pascal VOC does not use; remove it") from None
    except ElementTree.ParseError as error:
        line, column = error.position
        why = ErrorString(error.code) or "not well-formed"
        cut = "; it looks cut short" if not data.rstrip().endswith(b">") or "no element" in why else ""
        raise InputError(f"{file}, line {line}, column {column}: not valid XML ({why}{cut})") from None
    except (ExpatError, LookupError, ValueError) as error:  # an encoding that expat does not know
        raise InputError(f"{file}: not valid XML ({error})") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None


class _Doctype(Exception):
    pass


class _TreeBuilder(ElementTree.TreeBuilder):
    def doctype(self, *_: object) -> None:
        """Entities can only be declared in a DOCTYPE, and VOC has none: refuse it where it begins, before
        anything could be expanded."""
        raise _Doctype


def _corners(file: Path, number: int, item: ElementTree.Element) -> Box:
    values = []
    for tag in ("xmin", "ymin", "xmax", "ymax"):
        text = item.findtext(f"bndbox/{tag}")
        try:
            value = float(text or "")
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InputError(f"{file}: object {number} has no readable <{tag}> (found {text!r})")
        values.append(value)
    return values[0], values[1], values[2], values[3]


def _size(root: ElementTree.Element) -> tuple[float, float] | None:
    try:
        width, height = (float(root.findtext(f"size/{tag}") or 0) for tag in ("width", "height"))
    except ValueError:
        return None
    return (width, height) if width > 0 and height > 0 else None


def find_source(folder: Path) -> tuple[Source, list[str]]:
    """Find every XML and every picture anywhere below `folder` and join them.

    Returns the source and one line per problem (unreadable XML, XML without its picture); a caller that
    gets problems must not go on. InputError for a folder that is absent or has no XML or no pictures.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: {'is a file; name its folder' if folder.exists() else 'no such folder'}")
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    pictures = [path for path in files if path.suffix.lower() in PICTURE_SUFFIXES]
    annotations = [path for path in files if path.suffix.lower() == ".xml"]
    if not annotations:
        raise InputError(f"{folder}: no Pascal VOC annotations (*.xml) in it or below")
    if not pictures:
        raise InputError(f"{folder}: {len(annotations)} XML file(s) but no pictures in it or below")

    problems: list[str] = []
    passed_over: list[Path] = []
    found: dict[Path, AnnotatedPicture] = {}
    index = _PictureIndex(folder, pictures)
    for path in annotations:
        try:
            annotation = read_annotation(path)
            picture = index.picture_of(annotation)
        except NotVocError:
            passed_over.append(path)
            continue
        except InputError as error:
            problems.append(str(error))
            continue
        key = picture.relative_to(folder).with_suffix("").as_posix()
        found.setdefault(picture, AnnotatedPicture(picture, key)).annotations.append(annotation)
    if not found and not problems:
        raise InputError(f"{folder}: none of its {len(annotations)} XML file(s) is Pascal VOC")
    joined = tuple(found[picture] for picture in pictures if picture in found)
    alone = tuple(picture for picture in pictures if picture not in found)
    return Source(joined, alone, tuple(passed_over)), problems


class _PictureIndex:
    """Finds the picture of an annotation by name, without regard to folder, case or suffix."""

    def __init__(self, folder: Path, pictures: Sequence[Path]) -> None:
        self._folder = folder
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        for picture in pictures:
            for name in {picture.name.casefold(), picture.stem.casefold()}:
                self._by_name[name].append(picture)

    def picture_of(self, annotation: Annotation) -> Path:
        """The XML's own stem comes first: tools keep it in step with the picture, while `<filename>` is
        often left over from a copy or a renaming."""
        written = PureWindowsPath(annotation.filename).name  # knows both / and \
        names = [annotation.file.stem, written]
        if PureWindowsPath(written).suffix.lower() in PICTURE_SUFFIXES:
            names.append(PureWindowsPath(written).stem)
        for name in names:
            candidates = self._by_name.get(name.casefold(), [])
            if candidates:
                return self._nearest(annotation.file, candidates)
        also = f" or {written!r}" if written and written not in (annotation.file.stem, "") else ""
        raise InputError(
            f"{annotation.file}: no picture named {annotation.file.stem!r}{also} in {self._folder} or below"
        )

    def _nearest(self, file: Path, candidates: list[Path]) -> Path:
        """Of several pictures with one name, the one that shares most of the XML's own path.

        `a/images/1.jpg` belongs to `a/labels/1.xml`, `b/images/1.jpg` to `b/labels/1.xml`.
        """

        def shared(picture: Path) -> int:
            count = 0
            for ours, theirs in zip(file.parent.parts, picture.parent.parts, strict=False):
                if ours != theirs:
                    break
                count += 1
            return count

        best = max(shared(picture) for picture in candidates)
        nearest = [picture for picture in candidates if shared(picture) == best]
        if len(nearest) > 1:
            names = " and ".join(path.relative_to(self._folder).as_posix() for path in nearest[:2])
            raise InputError(f"{file}: could belong to {names}; give the pictures different names")
        return nearest[0]


def merge(
    picture: AnnotatedPicture, upright: tuple[int, int], orientation: int = 1
) -> tuple[list[Shape], list[str]]:
    """All boxes of a picture in pixels of the upright picture, and a note per box that had to be fixed.

    `upright` is the picture's size (width, height) after the rotation that its EXIF `orientation` (1..8)
    asks for. An XML that states the size before rotation was made by a tool that does not rotate: its boxes
    are turned along. A size of the same shape is a picture scaled after annotating: its boxes are scaled
    along. Any other size is an InputError. (A picture turned by half keeps its size; its boxes are taken as
    drawn on the upright picture.)
    """
    shapes: list[Shape] = []
    notes: list[str] = []
    for annotation in picture.annotations:
        notes.extend(annotation.notes)
        turned = orientation >= 5 and annotation.size == upright[::-1] and annotation.size != upright
        scale_x, scale_y = (1.0, 1.0) if turned else _scale(annotation, picture.file, upright)
        if turned:
            notes.append(f"{annotation.file}: boxes drawn before EXIF rotation; turned along")
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
            merged = Shape(shape.name, clipped)
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


def _scale(annotation: Annotation, picture: Path, upright: tuple[int, int]) -> tuple[float, float]:
    if annotation.size is None or annotation.size == upright:
        return 1.0, 1.0
    scale_x, scale_y = upright[0] / annotation.size[0], upright[1] / annotation.size[1]
    if abs(scale_x / scale_y - 1) > 0.02:
        raise InputError(
            f"{annotation.file}: made for a picture of {_by(annotation.size)}, "
            f"but {picture.name} is {_by(upright)}"
        )
    return scale_x, scale_y


def _by(size: Iterable[float] | None) -> str:
    return "x".join(f"{value:g}" for value in size or ())


def plain_name(name: str) -> str:
    """A class name without regard to case, underscores, hyphens and spacing."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()

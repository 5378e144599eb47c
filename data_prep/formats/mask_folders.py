"""Read masks that lie beside their pictures or in folders of their own, and nothing else that annotates.

Which mask belongs to which picture is found in mask_layout.py. What its pixels mean, by the first that fits:

- a list of classes (mask_classes.py) says what each value or colour is;
- its folder or its name says of which class all its pixels are (`masks/crack/1.png`, `1_CRACK.png`);
- masks of 0 and one other value show one class: that of the folder above the pictures (`MT_Crack/Imgs/`),
  else `object`;
- each other value or colour is a class, called `class 3` or `#ff0000`. 255 beside small values is the border
  that PASCAL VOC and Cityscapes leave out.

Each connected region is a Shape (specks of a few pixels are left out), but a mask for each object
(`1/masks/*.png`) is one Shape, and so is each value of a map of objects (`SegmentationObject`, or more values
than classes could be). Grey edges and JPEG noise of a mask of two values are cut at the middle. A mask that
marks nothing says that the picture shows nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data_prep.annotations import AnnotatedSource, Annotation, Shape, make_source
from data_prep.formats.image_lists import without_images
from data_prep.formats.layout import note_unused, set_groups_and_splits
from data_prep.formats.mask_classes import ClassList, ClassLists, is_nothing
from data_prep.formats.mask_layout import MaskFile, MaskLayout
from data_prep.formats.masks import Region, connected_regions
from data_prep.formats.shapes import UNNAMED
from data_prep.source_folder import SourceFolder, names_masks
from llava.common.errors import InputError
from llava.common.files import read_text
from llava.common.images import open_header

NAME = "masks"
_MAX_CLASSES = 32  # more values are objects, unless a list names them
_MAX_VALUES = 4096  # more are no mask
_FEW = 8  # values; more may be noise
_VOID = 255
_DETECT_MASKS = 6


@dataclass(frozen=True)
class _Mask:
    """A mask as read: its size (width, height) and the regions of each value that is not 0."""

    of: MaskFile
    size: tuple[float, float]
    regions: Mapping[int, Sequence[Region]]
    is_colour: bool
    specks: int
    notes: tuple[str, ...]


def detect(folder: SourceFolder) -> str | None:
    """Return why the folder looks like pictures with masks, None if it does not.

    Judges by names, and by the pixels of a few masks: a photo has many values.
    """
    masks = MaskLayout(folder).masks
    if not masks:
        return None
    sample = masks[:: max(1, len(masks) // _DETECT_MASKS)]
    try:
        if not all(_is_mask(mask.file) for mask in sample):
            return None
    except InputError:  # not readable: no reason to take it for a mask
        return None
    pictures = len({mask.image for mask in masks})
    example = f"{masks[0].file.name} of {masks[0].image.name}"
    return f"{len(masks)} mask(s) of {pictures} picture(s), such as {example}"


def _is_mask(file: Path) -> bool:
    values, _ = _read_values(file, keep_colours=False)
    found, counts = np.unique(values, return_counts=True)
    return len(found) <= 2 * _MAX_CLASSES or _is_soft(found, counts) or _is_map_of_objects(found)


def _is_soft(values: np.ndarray, counts: np.ndarray) -> bool:
    """Return whether many values are 0 and 255 with grey edges or noise between them."""
    top = int(values[-1])
    ends = (values <= 16) | (values >= top - 16)
    return _FEW < len(values) <= 256 and 128 <= top <= 255 and bool(counts[ends].sum() >= 0.9 * counts.sum())


def _is_map_of_objects(values: np.ndarray) -> bool:
    """Return whether the values count objects, from 1 on."""
    return values[0] == 0 and values[-1] == len(values) - 1 <= _MAX_VALUES and values.dtype != np.uint8


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Read every mask in the folder or below.

    Returns:
        The source, without the masks among its images, and the problems, one line each (an unreadable mask, a
        colour that the list of classes lacks); a caller that gets problems must not go on.

    Raises:
        InputError: The folder holds no pictures with masks.
    """
    layout = MaskLayout(folder)
    if not layout.masks:
        raise InputError(
            f"{folder.root}: no masks named like pictures, beside them or in a folder such as masks"
        )
    class_lists = ClassLists(folder)
    masks: dict[Path | None, list[_Mask]] = {}  # by the list of classes that says what they show
    lists: dict[Path | None, ClassList | None] = {}
    problems: list[str] = []
    for mask_file in layout.masks:
        try:
            classes = class_lists.of(mask_file.file)
            mask = _read_mask(mask_file, classes)
        except InputError as error:
            problems.append(str(error))
            continue
        key = classes.file if classes else None
        lists[key] = classes
        masks.setdefault(key, []).append(mask)
    notes = note_unused(folder, layout.lone, "mask(s) without a picture of their name")
    pairs: list[tuple[Path, Annotation]] = []
    for key, masks_of_list in masks.items():
        namer = _Namer(masks_of_list, lists[key], layout.folder_classes)
        notes += namer.notes
        for mask in masks_of_list:
            try:
                pairs.append((mask.of.image, _annotate(mask, namer)))
            except InputError as error:
                problems.append(str(error))
    with_masks = {image for image, _ in pairs}
    pairs += [pair for pair in _listed_without_mask(folder) if pair[0] not in with_masks]
    source = make_source(folder, NAME, pairs, notes)
    source = without_images(source, {mask.file for mask in layout.masks} | layout.shown | set(layout.lone))
    set_groups_and_splits(source, folder)
    if source.unannotated:
        note = (
            f"{len(source.unannotated)} picture(s) without a mask are taken as not annotated, for instance "
            f"{source.unannotated[0]}; give those that show nothing a black one"
        )
        source = replace(source, notes=(*source.notes, note))
    return source, problems


def _listed_without_mask(folder: SourceFolder) -> Iterator[tuple[Path, Annotation]]:
    """Yield the pictures that DAGM's `Label/Labels.txt` says to show nothing: 0 in place of a mask's name, as
    in `575 0 0575.PNG 0 0`."""
    images = set(folder.images)
    for file in folder.named(".txt"):
        if file.name.casefold() != "labels.txt" or not names_masks(file.parent.name):
            continue
        for line in read_text(file).splitlines():
            match = re.fullmatch(r"\d+\s+0\s+(\S+\.\w+)\s+0\s+0", line.strip())
            if match and (image := file.parent.parent / match[1]) in images:
                yield image, Annotation(file, match[1])


def _read_values(file: Path, *, keep_colours: bool) -> tuple[np.ndarray, bool]:
    """Return a mask's values (height, width), and whether they are colours (red << 16 | green << 8 | blue).

    Colours that are all grey give their grey value, a palette its indices, unless `keep_colours`. What is
    transparent is 0. InputError naming the file if it is no whole image.
    """
    with open_header(file) as opened:
        mode = opened.mode
        if mode == "P" and keep_colours:
            opened = opened.convert("RGB")
        elif mode in ("LA", "PA", "CMYK", "YCbCr", "RGBX"):
            opened = opened.convert("RGBA" if mode == "PA" else "RGB")
        pixels = np.asarray(opened)
    if pixels.ndim == 2:
        return (pixels.astype(np.uint8) if pixels.dtype == bool else pixels), False
    channels = pixels.astype(np.int64)
    if channels.shape[2] == 4:
        if not channels[..., :3].any():
            return pixels[..., 3], False
        channels = np.where(channels[..., 3:] > 127, channels, 0)
    red, green, blue = channels[..., 0], channels[..., 1], channels[..., 2]
    if not keep_colours and (red == green).all() and (green == blue).all():
        return red.astype(np.uint8), False
    return red << 16 | green << 8 | blue, True


def _read_mask(mask: MaskFile, classes: ClassList | None) -> _Mask:
    """Return a mask's regions. InputError naming it if it is unreadable or no mask."""
    values, is_colour = _read_values(mask.file, keep_colours=bool(classes and classes.by_colour))
    size = (float(values.shape[1]), float(values.shape[0]))
    found, counts = np.unique(values, return_counts=True)
    notes = []
    if values.dtype.kind == "f" and (found != np.round(found)).any():
        raise InputError(f"{mask.file}: its values are no whole numbers; save the mask as a PNG")
    if not is_colour and _is_soft(found, counts) and not (classes and len(classes.ordered) > 2):
        notes.append(f"{mask.file}: not binary ({len(found)} different values); cut at half of {found[-1]}")
        values = np.where(values > found[-1] / 2, 255, 0)
        found = np.unique(values)
    if len(found) > (2 * _MAX_CLASSES if is_colour else _MAX_VALUES):
        raise InputError(f"{mask.file}: {len(found)} values, too many for a mask; save it without loss")
    regions: dict[int, Sequence[Region]] = {}
    specks = 0
    for value in found:
        if value != 0:
            regions_of_value, left_out = connected_regions(values == value)
            specks += left_out
            if regions_of_value:
                regions[int(value)] = regions_of_value
    return _Mask(mask, size, regions, is_colour, specks, tuple(notes))


class _Namer:
    """Says what a value of a mask is called, by the rules in the module's docstring."""

    def __init__(
        self, masks: Sequence[_Mask], classes: ClassList | None, folder_classes: Mapping[Path, str]
    ) -> None:
        self.notes: list[str] = []
        self._classes = classes
        self._folder_classes = folder_classes
        plain = [mask for mask in masks if mask.of.needs_name]
        grey = [set(mask.regions) for mask in plain if not mask.is_colour]
        values = set().union(*grey)
        has_several = any(len(found) > 1 for found in grey)
        others = values - {_VOID}
        self._has_void = has_several and _VOID in values and max(others) < 128
        self._is_binary = (not has_several and values <= {1, _VOID}) or len(values) < 2
        self._is_binary = self._is_binary and not any(mask.is_colour and mask.regions for mask in plain)
        self.has_objects = classes is None and len(values) > _MAX_CLASSES
        self._by_value: Mapping[int, str] = {}
        if classes and values:
            self._by_value = classes.name_values(values)
        if self.has_objects:
            self.notes.append(f"{len(values)} values of masks: each taken as an object, not as a class")
        if self._is_binary and not classes and any(mask.of.file not in folder_classes for mask in plain):
            self.notes.append(f"masks that no folder, name or list of classes names: called {UNNAMED!r}")

    def name(self, mask: _Mask, value: int) -> str | None:
        """Return the class of a value, None if it is none. InputError if the list of classes lacks it."""
        classes = self._classes
        if mask.of.class_name:
            return mask.of.class_name
        if classes and mask.is_colour and classes.by_colour:
            if value not in classes.by_colour:
                raise InputError(f"{mask.of.file}: its colour #{value:06x} is not in {classes.file}")
            return _unless_nothing(classes.by_colour[value])
        if mask.of.is_object or mask.of.has_objects or self.has_objects:
            only = classes.ordered[0] if classes and len(classes.ordered) == 1 else UNNAMED
            return self._folder_classes.get(mask.of.file, only)
        if classes and not mask.is_colour:
            if value in self._by_value:
                return _unless_nothing(self._by_value[value])
            if value == _VOID:
                return None
            raise InputError(f"{mask.of.file}: its value {value} is not in {classes.file}")
        if self._is_binary:
            return self._folder_classes.get(mask.of.file, UNNAMED)
        if self._has_void and value == _VOID:
            return None
        return f"#{value:06x}" if mask.is_colour else f"class {value}"


def _unless_nothing(name: str) -> str | None:
    return None if is_nothing(name) else name


def _annotate(mask: _Mask, namer: _Namer) -> Annotation:
    """Return the annotation of a mask's picture. InputError for a value without a name."""
    notes = list(mask.notes)
    if mask.specks:
        notes.append(f"{mask.of.file}: {mask.specks} speck(s) of a few pixels left out")
    shapes: list[Shape] = []
    for value, regions in mask.regions.items():
        name = namer.name(mask, value)
        if name is None:
            continue
        if mask.of.has_objects or namer.has_objects:
            regions = [_join(regions)]
        shapes += [Shape(name, box, area) for box, area in regions]
    if mask.of.is_object and shapes:
        box, area = _join([(shape.box, shape.area or 0) for shape in shapes])
        shapes = [Shape(shapes[0].name, box, area)]
    return Annotation(mask.of.file, size=mask.size, shapes=tuple(shapes), notes=tuple(notes))


def _join(regions: Sequence[Region]) -> Region:
    """Return the box around several regions, and their area together."""
    boxes = [box for box, _ in regions]
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return (min(lefts), min(tops), max(rights), max(bottoms)), sum(area for _, area in regions)

"""Find masks among the images of a folder, and the picture that each belongs to, by folders and names.

The layouts that are met, where `masks` may be `labels`, `gt`, `annotations`, `SegmentationClass` and more:

    images/1.jpg      masks/1.png, masks/1_mask.png       folders side by side, as train/ and train_masks/
    images/1.jpg      masks/crack/1.png                   a folder for each class
    images/1.jpg      masks/1_crack.png, masks/1_0.png    a mask for each class, or for each object
    1/images/1.png    1/masks/*.png                       a folder for each picture, a mask for each object
    images/1.jpg      masks/1/*.png                       the same
    1.jpg             1.png, 1_mask.png, 1_crack.png      beside the picture
    1_RAW.jpg         1_CRACK.png, 1_LANE.png             the same

Where none of these is found, a mask in a folder of masks belongs to the picture of its name that is nearest:

    Defect_images/1.png   Mask_images/1_mask.png
    rails/1.jpg           GroundTruth/1.jpg
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from os.path import commonpath
from pathlib import Path

from data_prep.source_folder import IMAGE_SUFFIXES, SourceFolder, split_in

_MASK_WORDS = {"mask", "masks", "label", "labels", "lab", "labs", "gt", "groundtruth"}
_MASK_WORDS |= {"annotation", "annotations", "ann", "anns", "annot", "annots"}
_MASK_WORDS |= {"seg", "segs", "segmentation", "segmentations", "segmap", "segmaps"}
_IMAGE_WORDS = {
    *("image", "images", "img", "imgs", "photo", "photos", "picture", "pictures", "rgb", "original"),
    *("originals", "orig", "input", "inputs", "raw", "jpeg", "jpg", "sat"),
}
_FILLERS = {
    *("dir", "folder", "file", "files", "png", "class", "object", "objects", "binary", "pixel", "semantic"),
    *("instance", "instances", "color", "colour", "ground", "truth", "data", "dataset", "level", "ids", "id"),
}
_SHOWN = {"visualization", "visualisation", "visualizations", "vis", "viz", "overlay", "overlays", "preview"}
_INSTANCES = {"object", "objects", "instance", "instances"}
_NO_CLASS = {"data", "dataset", "datasets", "all", "full", "samples", "set"}
_SPLIT_CROPS = re.compile(r"(?:train|valid|val|test)[\s_-]*(?:crop|tile|patch|data|set)", re.I)  # CRACK500
_NUMBERED_CLASS = re.compile(r"(?:class|type|defect)[\s_-]*\d+", re.I)  # DAGM
_LOSSLESS = {".png", ".bmp", ".tif", ".tiff"}
_MASK_TAIL = re.compile(
    r"(?:^|[\s_.-]+)(?:masks?|labels?|lab|gt|seg|segmentation|annotation|ground[\s_-]?truth|labelids|"
    r"label[\s_-]?ids|binary|[lmp])$",
    re.I,
)
_IMAGE_TAIL = re.compile(r"(?:^|[\s_.-]+)(?:image|img|raw|rgb|orig|original|sat|photo|leftimg8bit)$", re.I)

_Key = tuple[str, ...]


@dataclass(frozen=True)
class MaskFile:
    """A mask and its picture.

    `class_name` is what its folder or its name calls the class of all its pixels, None if they do not;
    `is_object` says that all its pixels are one object, `has_objects` that each of its values is one.
    """

    file: Path
    image: Path
    class_name: str | None = None
    is_object: bool = False
    has_objects: bool = False

    @property
    def needs_name(self) -> bool:
        """Whether only its values can say what it shows."""
        return not (self.class_name or self.is_object or self.has_objects)


@dataclass(frozen=True)
class _Place:
    """A path taken apart: its folders without the words for masks and images, as written."""

    path: Path
    before: tuple[str, ...]
    after: tuple[str, ...]  # the folders below the one of masks
    is_mask: bool
    is_shown: bool
    has_objects: bool

    @property
    def key(self) -> _Key:
        return _plain((*self.before, *self.after))


class MaskLayout:
    """The masks of a folder and the pictures that have none; `shown` are images drawn to show masks."""

    def __init__(self, folder: SourceFolder) -> None:
        places = [_place(folder.image_root, path) for path in folder.images]
        if folder.root != folder.image_root:
            places += [_place(folder.root, path) for path in folder.named(*IMAGE_SUFFIXES)]
        self.shown = {place.path for place in places if place.is_shown}
        self._by_key: dict[_Key, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
        pictures = [place for place in places if not place.is_mask and not place.is_shown]
        for place in pictures:
            for stem in _stems(place.path, _IMAGE_TAIL):
                self._by_key[place.key][stem].append(place.path)
        self.masks: list[MaskFile] = []
        self.lone: list[Path] = []  # in folders of masks, but of no picture
        for place in places:
            if place.is_mask and not place.is_shown:
                mask = self._mask_of(place)
                self.masks += [mask] if mask else []
                self.lone += [] if mask else [place.path]
        is_by_name = not self.masks
        if is_by_name:
            self._pair_by_name(places)
        if not self.masks:
            is_by_name = False
            self.masks = [mask for place in pictures if (mask := self._mask_beside(place))]
        in_use = {mask.file for mask in self.masks}
        self.masks = [mask for mask in self.masks if mask.image not in in_use]
        self._drop_maps_of_objects()
        self.folder_classes: dict[Path, str] = {}
        if not is_by_name:
            self._name_by_folder({place.path: place for place in places})

    def _image(self, key: _Key, stem: str) -> Path | None:
        images = self._by_key[key].get(stem, []) if key in self._by_key else []
        return images[0] if len(images) == 1 else None

    def _mask_of(self, place: _Place) -> MaskFile | None:
        """Return the mask that a file in a folder of masks is, None if it has no picture."""
        file, before, after = place.path, place.before, place.after
        stems = _stems(file, _MASK_TAIL)
        for stem in stems:
            if image := self._image(place.key, stem):
                return MaskFile(file, image, has_objects=place.has_objects)
        for index, name in enumerate(after):
            others = _plain((*before, *after[:index], *after[index + 1 :]))
            for stem in stems:
                if image := self._image(others, stem):
                    return MaskFile(file, image, class_name=name)
        if after and (image := self._image(_plain((*before, *after[:-1])), after[-1].casefold())):
            return MaskFile(file, image, is_object=True)
        if found := self._by_stem_and_tail(place.key, file):
            return found
        pictures = {path for paths in self._by_key.get(place.key, {}).values() for path in paths}
        if len(pictures) == 1 and before:
            return MaskFile(file, pictures.pop(), is_object=True)
        return None

    def _pair_by_name(self, places: list[_Place]) -> None:
        """Give each mask the picture of its name that shares most of its path, whatever its folder."""
        pictures: dict[str, list[_Place]] = defaultdict(list)
        for place in places:
            if not place.is_mask and not place.is_shown:
                for stem in _stems(place.path, _IMAGE_TAIL):
                    pictures[stem].append(place)
        for place in places:
            if not place.is_mask or place.is_shown:
                continue
            stems = [re.sub(r"(?<=mask)\d+$", "", stem) for stem in _stems(place.path, _MASK_TAIL)]
            known = [stem for stem in (*stems, _MASK_TAIL.sub("", stems[0])) if stem in pictures]
            if not known:
                continue
            near = pictures[known[0]]
            shared = [len(commonpath([place.path, picture.path])) for picture in near]
            if shared.count(max(shared)) == 1:
                picture = near[shared.index(max(shared))]
                above = "/".join(picture.before).casefold()
                names = [name for name in place.after if name not in above and not split_in([name])]
                self.masks.append(MaskFile(place.path, picture.path, names[-1] if names else None))
        paired = {mask.file for mask in self.masks}
        self.lone = [path for path in self.lone if path not in paired]

    def _by_stem_and_tail(self, key: _Key, file: Path) -> MaskFile | None:
        """Return the mask `1_crack.png` or `1_0.png` of the picture `1.jpg`, None if there is none."""
        for match in reversed(list(re.finditer(r"[\s_.-]+", file.stem))):
            stem, tail = file.stem[: match.start()], file.stem[match.end() :]
            if stem and tail and (image := self._image(key, stem.casefold())) and image != file:
                words = re.sub(
                    r"^(?:masks?|labels?|seg)[\s_-]*|[\s_-]*(?:masks?|labels?|seg)$", "", tail, flags=re.I
                )
                is_number = re.fullmatch(r"[\d\s_.-]*", words) is not None
                return MaskFile(file, image, None if is_number else words, is_object=is_number)
        return None

    def _mask_beside(self, place: _Place) -> MaskFile | None:
        """Return the mask that a file is which lies beside its picture, None if it is a picture."""
        file = place.path
        if file.suffix.lower() not in _LOSSLESS or _IMAGE_TAIL.search(file.stem):
            return None
        for stem in _stems(file, _MASK_TAIL)[::-1]:
            images = [image for image in self._by_key[place.key].get(stem, []) if image.parent == file.parent]
            others = [image for image in images if image != file]
            is_tail = stem != file.stem.casefold()
            if len(others) == 1 and (is_tail or others[0].suffix.lower() not in _LOSSLESS):
                return MaskFile(file, others[0])
        found = self._by_stem_and_tail(place.key, file)
        is_same = found and (
            found.image.suffix.lower() in _LOSSLESS and not _IMAGE_TAIL.search(found.image.stem)
        )
        return None if found is None or is_same or found.image.parent != file.parent else found

    def _drop_maps_of_objects(self) -> None:
        """Keep SegmentationObject only where no SegmentationClass says the classes."""
        with_classes = {mask.image for mask in self.masks if not mask.has_objects}
        dropped = {mask.file for mask in self.masks if mask.has_objects and mask.image in with_classes}
        self.masks = [mask for mask in self.masks if mask.file not in dropped]
        self.shown |= dropped

    def _name_by_folder(self, places: dict[Path, _Place]) -> None:
        """Give masks without a class that of the folder above, where that holds several pictures."""
        names = {mask.file: _folder_class(places[mask.image]) for mask in self.masks if not mask.class_name}
        images: dict[str, set[Path]] = defaultdict(set)
        for mask in self.masks:
            if name := names.get(mask.file):
                images[name].add(mask.image)
        self.folder_classes = {file: name for file, name in names.items() if name and len(images[name]) > 1}


def _folder_class(place: _Place) -> str | None:
    """Return the class that the folder above a picture is; None for one of a day or of the picture alone."""
    names = [name for name in place.before if not split_in([name])]
    name = names[-1] if names else ""
    is_number = name[-1:].isdigit() and not _NUMBERED_CLASS.fullmatch(name)
    is_other = not name or is_number or name.casefold() in _NO_CLASS or _SPLIT_CROPS.match(name)
    return None if is_other or place.path.stem.casefold().startswith(name.casefold()) else name


def _plain(parts: tuple[str, ...]) -> _Key:
    return tuple(part.casefold() for part in parts)


def _stems(path: Path, tail: re.Pattern[str]) -> list[str]:
    """Return the name without suffix, and the same without what it ends in."""
    stem = path.stem.casefold()
    return list(dict.fromkeys((stem, tail.sub("", stem))))


def _place(root: Path, path: Path) -> _Place:
    before: list[str] = []
    after: list[str] = []
    is_mask = is_shown = has_objects = False
    for part in path.relative_to(root).parts[:-1]:
        # CamVid's folders are train, trainannot, val ...
        spaced = re.sub(r"^(train|val|test)(?=annot)", r"\1 ", part)
        words = [word.casefold() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", spaced)]
        is_truth = {"ground", "truth"} <= set(words)
        if is_truth or _MASK_WORDS & set(words):
            is_mask = True
            is_shown = is_shown or bool(_SHOWN & set(words))
            has_objects = has_objects or bool(_INSTANCES & set(words))
            rest = [word for word in words if word not in _MASK_WORDS | _FILLERS | _IMAGE_WORDS]
        elif _IMAGE_WORDS & set(words) and set(words) <= _IMAGE_WORDS | _FILLERS | {"train", "val", "test"}:
            rest = [word for word in words if word not in _IMAGE_WORDS | _FILLERS]
        else:
            rest = [part]
        (after if is_mask else before).extend(rest)
    return _Place(path, tuple(before), tuple(after), is_mask, is_shown, has_objects)

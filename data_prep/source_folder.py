"""The files of a source, and the image that a name written in one of them means."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path, PureWindowsPath
from typing import Literal
from urllib.parse import unquote, urlsplit

from llava.common.errors import InputError
from llava.common.html.markup import readable

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".heic", ".heif"})
_ADDRESS = re.compile(r"(?:https?|s3|gs)://[\w.:-]+/", re.I | re.A)
Split = Literal["train", "val", "calibration", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "calibration", "test")
"""From what is trained on to what is held out most."""
QUESTIONED: tuple[Split, ...] = ("calibration", "test")
"""The splits that get a question file and a truth file: the model is asked, not trained."""
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
    """Return the split that words such as folder names state (`valid`, `train2017`); None if none or
    several."""
    names = (re.sub(r"\d{4}$", "", word.casefold()) for word in words)
    splits = {SPLIT_NAMES[name] for name in names if name in SPLIT_NAMES}
    return splits.pop() if len(splits) == 1 else None


# Words of the names of folders whose images are drawn for those of other folders: masks, annotations shown.
_MASK_WORDS = {"mask", "seg", "segmentation", "visualization", "visualisation", "gt", "groundtruth", "truth"}
_MASK_WORDS |= {"label", "annotation", "trimap"}


@cache
def names_masks(folder: str) -> bool:
    """Return whether a folder's name says that its images are masks or drawings (`SegmentationClass`,
    `train_masks`)."""
    words = re.findall("[A-Z]?[a-z]+|[A-Z]+(?![a-z])", folder)
    return any(word.casefold().removesuffix("s") in _MASK_WORDS for word in words)


class NoImageError(InputError):
    """No image has the name that a file states, or only one that must be another."""


@dataclass(frozen=True)
class SourceFolder:
    """The files of a source on disk, sorted, without hidden ones. Images may have a folder of their own.

    `misnamed` are files whose names are not UTF-8. They are not among the others: no JSON can name them.
    """

    root: Path
    files: tuple[Path, ...]
    image_root: Path
    image_files: tuple[Path, ...]
    misnamed: tuple[Path, ...] = ()

    @staticmethod
    def scan(root: Path, image_root: Path | None = None) -> SourceFolder:
        """List the files below `root`, and the images below `image_root` (default: `root`).

        InputError if a folder is absent or its own name is not UTF-8.
        """
        for folder in (root, *([image_root] if image_root else [])):
            if not _is_utf8(str(folder)):
                raise InputError(f"{readable(str(folder))}: its name is not UTF-8; rename the folder")
        files, misnamed = _files_below(root)
        if image_root is None or image_root == root:
            return SourceFolder(root, files, root, files, misnamed)
        images, more = _files_below(image_root)
        return SourceFolder(root, files, image_root, images, tuple(dict.fromkeys((*misnamed, *more))))

    @property
    def naming_problems(self) -> list[str]:
        """A line for each file that cannot be used because of its name."""
        return [f"{readable(str(path))}: its name is not UTF-8; rename it" for path in self.misnamed]

    def named(self, *suffixes: str) -> list[Path]:
        """Return the source's files with one of these suffixes (lower case, with the dot)."""
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
        """Return the image's path below its folder, without suffix."""
        return image.relative_to(self.image_root).with_suffix("").as_posix()

    @cached_property
    def _image_folders(self) -> set[tuple[str, ...]]:
        """The ends of the paths below `image_root` of all folders with images, last part first."""
        folders = {image.parent.relative_to(self.image_root).parts for image in self.images}
        reversed_paths = [tuple(part.casefold() for part in reversed(parts)) for parts in folders]
        return {parts[:count] for parts in reversed_paths for count in range(1, len(parts) + 1)}

    def split_of(self, image: Path) -> Split | None:
        """Return the split that the image's folders name."""
        return split_in(image.relative_to(self.image_root).parent.parts)

    def in_mask_folder(self, image: Path) -> bool:
        """Return whether a folder that the image lies in names masks or drawings."""
        return any(map(names_masks, image.relative_to(self.image_root).parent.parts))

    def image_of(
        self, file: Path, *names: str, split: Split | None = None, owners: dict[Path, str] | None = None
    ) -> Path:
        """Return the image that a name written in `file` means.

        Names are taken without regard to folder, case and suffix, as `/a/b.jpg`, `a\\b` or `b`; of several
        images with that name, the one that shares most of the written path, then has the split, then is no
        mask (`JPEGImages/1.jpg`, not `SegmentationClass/1.png`), then shares most of the file's own path
        (`a/images/1.jpg` belongs to `a/labels/1.xml`, then `images/b/1.jpg` to `labels/b/1.xml`), then has
        one of the written names with its suffix.

        An image that is missing is not mistaken for its namesake elsewhere. A namesake is refused if its
        folders name another split than the written path and `split` do, or if another folder of images fits
        the written path better; but never one beside a file of its name.

        Args:
            file: The annotation file.
            names: The names that the image may have, the likeliest first. An address
                (`https://host/a%20b.jpg?key=1`) stands for its path, too.
            split: The image's split, if known; by default the one that the file's folders name.
            owners: For a file that names many images: the written path that each image was found by so far,
                kept up to date here. A path that leads elsewhere (`day2/1.jpg` after `day1/1.jpg`, not after
                `1.jpg`) cannot mean the same image.

        Raises:
            NoImageError: There is none.
            InputError: There are still several, or the image belongs to another path.
        """
        split = split or split_in(file.relative_to(self.root).parent.parts)
        names = (*names, *(unquote(urlsplit(name).path) for name in names if _ADDRESS.match(name)))
        for name in names:
            written = PureWindowsPath(name)  # knows both / and \
            known_suffix = written.suffix.lower() in IMAGE_SUFFIXES
            for plain in dict.fromkeys((written.name, written.stem if known_suffix else written.name)):
                if candidates := self._by_name.get(plain.casefold()):
                    image = self._nearest(file, written, candidates, split, names)
                    if owners is not None:
                        _claim(owners, file, name, image)
                    return image
        also = " or ".join(dict.fromkeys(repr(PureWindowsPath(name).name) for name in names if name))
        raise NoImageError(f"{file}: no picture named {also} in {self.image_root} or below")

    def _nearest(
        self,
        file: Path,
        written: PureWindowsPath,
        candidates: list[Path],
        split: Split | None,
        names: Sequence[str],
    ) -> Path:
        tail = tuple(part.casefold() for part in reversed(written.parts[:-1]))
        reasons = [self._contradiction(file, tail, image, split) for image in candidates]
        fitting = [image for image, why in zip(candidates, reasons, strict=True) if why is None]
        if not fitting:
            found = candidates[0].relative_to(self.image_root).as_posix()
            raise NoImageError(f"{file}: no picture {str(written)!r}; found only {found}, {reasons[0]}")

        full_names = {PureWindowsPath(name).name.casefold() for name in names}

        own_tail = [part.casefold() for part in reversed(file.parent.parts)]

        def rank(image: Path) -> tuple[int, bool, bool, int, int, bool]:
            same_split = split is not None and self.split_of(image) == split
            is_photo = image.parent == file.parent or not self.in_mask_folder(image)
            shared = _shared(file.parent.parts, image.parent.parts)
            has_full_name = image.name.casefold() in full_names
            own = _same_tail(own_tail, image)
            return _same_tail(tail, image), same_split, is_photo, shared, own, has_full_name

        best = max(map(rank, fitting))
        nearest = [image for image in fitting if rank(image) == best]
        if len(nearest) > 1:
            listed = " and ".join(path.relative_to(self.image_root).as_posix() for path in nearest[:2])
            raise InputError(
                f"{file}: could belong to {listed}; give the pictures different names, or name the folder "
                "of photos with --image-folder"
            )
        return nearest[0]

    def _contradiction(
        self, file: Path, tail: tuple[str, ...], image: Path, split: Split | None
    ) -> str | None:
        """Return why `image` cannot be the one meant, None if it can.

        Args:
            file: The annotation file.
            tail: The written folders, last first.
            image: An image with the written name.
            split: The split of the image that is meant.
        """
        if image.parent == file.parent and image.stem.casefold() == file.stem.casefold():
            return None
        stated = {split, split_in(tail)} - {None}
        split_of_image = self.split_of(image)
        if stated and split_of_image and split_of_image not in stated:
            return f"which is of the split {split_of_image}, not {min(map(str, stated))}"
        fit = max((count for count in range(len(tail) + 1) if tail[:count] in self._image_folders), default=0)
        if fit > _same_tail(tail, image):
            return f"but there are pictures in a folder {'/'.join(reversed(tail[:fit]))!r} too"
        return None


def _files_below(root: Path) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Return the files below `root`, and those whose names below it are not UTF-8."""
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
    """Return how many of the leading parts are the same."""
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count


def _same_tail(tail: Iterable[str], image: Path) -> int:
    """Return how many of the written folders, last first, are those that the image lies in."""
    return _shared(tail, (part.casefold() for part in reversed(image.parent.parts)))


def _claim(owners: dict[Path, str], file: Path, written: str, image: Path) -> None:
    """Note in `owners` that `file` calls `image` by `written`, see `SourceFolder.image_of`.

    InputError if the image belongs to another path.
    """
    owner = owners.setdefault(image, written)
    paths = [PureWindowsPath(name.casefold()) for name in (owner, written)]
    if any(path.suffix not in IMAGE_SUFFIXES for path in paths):
        paths = [path.with_suffix("") if path.suffix in IMAGE_SUFFIXES else path for path in paths]
    ends = zip(*(reversed(path.parts) for path in paths), strict=False)
    if any(one != other for one, other in ends):
        raise InputError(
            f"{file}: {owner!r} and {written!r} would both be {image}; one of them is missing, or write "
            f"them alike"
        )

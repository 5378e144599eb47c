"""Find YOLO's label files, and the image that each belongs to."""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from pathlib import Path

from data_prep.source_folder import SourceFolder
from llava.common.errors import InputError

# Text files that lie among labels and are none, unless an image has their name.
_NO_LABELS = {"classes", "predefined_classes", "train", "val", "valid", "test", "notes", "readme"}
_NO_LABELS |= {"class_names", "classnames", "class", "names", "labels", "label", "obj_names"}


class YoloLayout:
    """The label files of a folder and their images."""

    def __init__(self, folder: SourceFolder) -> None:
        self.folder = folder
        self._image_names = {name.casefold() for path in folder.images for name in (path.stem, path.name)}

    @cached_property
    def _images(self) -> dict[Path, dict[str, list[Path]]]:
        """Folder of images -> name or stem -> images."""
        images: dict[Path, dict[str, list[Path]]] = {}
        for image in self.folder.images:
            names = images.setdefault(image.parent, defaultdict(list))
            for name in {image.name.casefold(), image.stem.casefold()}:
                names[name].append(image)
        return images

    def label_files(self) -> tuple[list[Path], list[Path]]:
        """Return the text files that are labels, by their name or folder, and the others."""
        labels: list[Path] = []
        others: list[Path] = []
        for path in self.folder.named(".txt"):
            stem = path.stem.casefold()
            among_labels = _last_index(self._folders(path), "labels") is not None and stem not in _NO_LABELS
            (labels if stem in self._image_names or among_labels else others).append(path)
        return labels, others

    def _folders(self, label: Path) -> tuple[str, ...]:
        return label.relative_to(self.folder.root).parent.parts

    def image_of(self, label: Path) -> Path:
        """Return the image of a label file. InputError if there is none, or several.

        Where a folder that goes with the label's own has images, the image is not looked for elsewhere: its
        namesake there is another image.
        """
        folders = [folder for folder in self._image_folders(label) if folder in self._images]
        for folder in folders:
            images = self._images[folder].get(label.stem.casefold(), [])
            if len(images) > 1:
                raise InputError(f"{label}: could belong to {images[0]} and {images[1].name}; rename one")
            if images:
                return images[0]
        if any(folder != self.folder.image_root for folder in folders):
            raise InputError(f"{label}: no picture named {label.stem!r} in {folders[0]}")
        return self.folder.image_of(label, label.stem)

    def _image_folders(self, label: Path) -> list[Path]:
        """Return the folders of images that go with the label's own, the likeliest first."""
        root, parts = self.folder.image_root, self._folders(label)
        index = _last_index(parts, "labels")
        if index is None:
            return [root.joinpath(*parts)]
        above, below = root.joinpath(*parts[:index]), parts[index + 1 :]
        images = [above.joinpath(name, *below) for name in ("images", "Images", "IMAGES")]
        return [*images, above.joinpath(*below)]

    def has_own_label_tree(self, label: Path, image: Path) -> bool:
        """Return whether the image's folder has a tree of labels of its own, in which a missing file means an
        image with nothing in it."""
        return label.parent != image.parent and image.parent in self._image_folders(label)


def _last_index(parts: tuple[str, ...], name: str) -> int | None:
    indices = [index for index, part in enumerate(parts) if part.casefold() == name]
    return indices[-1] if indices else None

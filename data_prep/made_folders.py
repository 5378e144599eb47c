"""Reads folders of made pictures, but no picture of them: `convert --synthetic DIR`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.annotations import AnnotatedImage, AnnotatedSource, Annotation, Shape
from data_prep.images.units import unknown_classes
from data_prep.recipe.schema import Recipe
from data_prep.source_folder import SourceFolder
from data_prep.synthetic import read_synthetic, says_made
from llava.common.boxes import Box
from llava.common.errors import InputError
from llava.common.files import inside, read_json
from llava.common.synthetic import SYNTHETIC_FILE, Facts, MadeAnnotation, SyntheticFile

NONE = "none"  # what is made where only the background is new


@dataclass(frozen=True)
class MadePicture:
    """A made picture with its annotations and facts. `boxes` are those of what was made, in its pixels."""

    image: AnnotatedImage
    facts: Facts
    boxes: tuple[Box, ...]

    @property
    def kind(self) -> str:
        return self.facts.kind or NONE


@dataclass(frozen=True)
class MadeFolder:
    """A folder that `synthesize` wrote. `removed` counts the pictures whose files somebody took out of it."""

    root: Path
    pictures: tuple[MadePicture, ...]
    removed: int = 0


def refuse_made(folder: SourceFolder, source: AnnotatedSource) -> None:
    """Raise InputError if a source of photos holds made pictures: they would be split, and so tested on."""
    named = [file for file in folder.named(".json") if file.name == SYNTHETIC_FILE]
    made = [*source.made, *(file for file in named if says_made(read_json(file)))]
    if made:
        raise InputError(
            f"{made[0]}: its pictures were made by `synthesize`, and must not be tested on; name photos (to "
            "train on it, its folder goes behind `convert --synthetic`)"
        )


def open_made_folders(roots: Sequence[Path], recipe: Recipe) -> list[MadeFolder]:
    """Read what each folder says of its pictures, but no picture.

    Raises:
        InputError: A folder is not one of `synthesize`, contradicts itself or has classes that the recipe
            lacks.
    """
    if len({root.resolve() for root in roots}) < len(roots):
        raise InputError("--synthetic names one folder twice")
    names = [root.resolve().name for root in roots]
    folders = []
    for number, (root, name) in enumerate(zip(roots, names, strict=True), start=1):
        # Keys tell where a picture is from; two folders may have one name.
        unique = name if names.count(name) == 1 else f"{name}_{number}"
        content = read_synthetic(root)
        pictures = tuple(_pictures(root, unique, content))
        if content.images and not pictures:
            raise InputError(f"{root}: none of the pictures of its {SYNTHETIC_FILE} is there")
        folders.append(MadeFolder(root, pictures, len(content.images) - len(pictures)))
    images = [picture.image for folder in folders for picture in folder.pictures]
    if unknown := unknown_classes(images, recipe, recipe.known_names()):
        raise InputError(unknown[0])
    return folders


def _pictures(root: Path, name: str, content: SyntheticFile) -> Iterable[MadePicture]:
    """Yield the pictures of a folder, `name` being the beginning of their keys; whoever looks at them may
    remove bad ones."""
    file = root / SYNTHETIC_FILE
    names = {category.id: category.name for category in content.categories}
    of_image: dict[int, list[MadeAnnotation]] = {image.id: [] for image in content.images}
    if len(of_image) < len(content.images) or len(content.made_by_name()) < len(content.images):
        raise InputError(f"{file}: an id or file_name of `images` is there twice; make it again")
    for annotation in content.annotations:
        where = f"{file}, annotation {annotation.id}"
        if annotation.image_id not in of_image or annotation.category_id not in names:
            raise InputError(f"{where}: its image_id or category_id is of nothing; make the file again")
        if min(annotation.bbox[2:]) <= 0:
            raise InputError(f"{where}: its bbox is empty; make the file again")
        of_image[annotation.image_id].append(annotation)
    for image in content.images:
        path = inside(root, image.file_name)
        if not path.is_file():
            continue
        boxes = tuple(annotation.box for annotation in of_image[image.id] if annotation.made)
        if image.synthetic.kind is not None and not boxes:
            raise InputError(
                f"{file}: {image.file_name} has a {image.synthetic.kind} made and no annotation of it"
            )
        shapes = tuple(
            Shape(
                names[annotation.category_id],
                annotation.box,
                annotation.area if annotation.segmentation else None,
            )
            for annotation in of_image[image.id]
        )
        key = f"{name}/{Path(image.file_name).with_suffix('').as_posix()}"
        annotated = Annotation(file, image.file_name, (image.width, image.height), shapes)
        yield MadePicture(AnnotatedImage(path, key, [annotated]), image.synthetic, boxes)

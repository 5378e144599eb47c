"""Read COCO annotations: boxes, polygons and masks of many images in one JSON file.

The format: lists `images`, `annotations` and `categories` joined by ids; `bbox` is [x, y, width, height] in
pixels from the top left; `segmentation` is a list of polygons or a run-length mask (T.-Y. Lin et al.,
"Microsoft COCO", 2014; https://cocodataset.org/#format-data). What real files do to it: several files for
one folder, a `_annotations.coco.json` beside the images of each split and a category that nothing uses
(Roboflow), `file_name` with a foreign folder, boxes without size or with a negative one, no `bbox`, one
image listed twice, ids of nothing, ids that are numbers in one list and texts in the other (VGG VIA), the
angle of a rotated box apart from it (CVAT).

One file is read in coco_file.py, its run-length masks in coco_masks.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from data_prep.annotations import AnnotatedSource, Annotation, make_source
from data_prep.formats.coco_file import LISTS, CocoFile, read_file
from data_prep.formats.layout import note_unused, read_files, require_images, set_groups_and_splits
from data_prep.source_folder import SourceFolder, Split, split_in
from llava.common.errors import InputError

NAME = "coco"
_DETECT_BYTES = 1 << 20  # read at a time
_LONGEST_KEY = 256  # bytes, with the space around the colon: a key may lie across two reads
_LIST_KEYS = {name: re.compile(rb'"%s"\s*:\s*\[' % name.encode()) for name in LISTS}


def detect(folder: SourceFolder) -> str | None:
    """Return why the folder looks like COCO, None if it does not."""
    count = sum(_is_coco(path) for path in folder.named(".json"))
    return f"{count} JSON file(s) with {', '.join(LISTS)} at the top" if count else None


def _is_coco(path: Path) -> bool:
    """Judge by the names of the lists. They come in any order, and a list before them may be very long."""
    known: set[str] = set()
    names_images = False
    try:
        with path.open("rb") as file:
            block = file.read(_DETECT_BYTES)
            if not re.match(rb"(?:\xef\xbb\xbf)?\s*\{", block):
                return False
            while block and len(known) < 2:
                known |= {name for name, key in _LIST_KEYS.items() if key.search(block)}
                names_images = names_images or b'"file_name"' in block
                more = file.read(_DETECT_BYTES)
                block = block[-_LONGEST_KEY:] + more if more else b""
    except OSError:
        return False
    return len(known) > 1 or (names_images and "images" in known)


def read(folder: SourceFolder) -> tuple[AnnotatedSource, list[str]]:
    """Read every COCO file in the folder or below and find its images.

    An image in `images` without annotations was labelled and shows nothing. Its split is that of its folder
    (`valid`, `train2017`), else of the file that lists it (`instances_train.json`).

    Returns:
        The source and the problems, one line each; a caller that gets problems must not go on.

    Raises:
        InputError: The folder holds no COCO files or no images.
    """
    candidates = [path for path in folder.named(".json") if _is_coco(path)]
    if not candidates:
        raise InputError(f"{folder.root}: no COCO annotations (*.json) in it or below")
    require_images(folder, f"{folder.root}: {len(candidates)} COCO file(s)")
    contents, others, problems = read_files(candidates, read_file)
    if not contents and not problems:
        raise InputError(f"{folder.root}: none of its JSON file(s) has the lists {', '.join(LISTS)}")
    others += set(folder.named(".json")) - set(candidates)
    files = [content for _, content in contents]
    notes = note_unused(folder, others, "JSON file(s) that are not COCO")
    notes += _note_unused_categories(files)

    pairs: list[tuple[Path, Annotation]] = []
    splits: dict[Path, set[Split]] = {}
    for coco in files:
        notes += coco.notes
        problems += coco.problems
        split = _split_of_file(folder, coco.file)
        pairs_of_file, not_found = _find_images(folder, coco, split)
        pairs += pairs_of_file
        problems += not_found
        if split:
            for image, _ in pairs_of_file:
                splits.setdefault(image, set()).add(split)
    notes += _note_several_splits(splits)
    source = make_source(folder, NAME, pairs, notes)
    source = replace(source, made=tuple(coco.file for coco in files if coco.is_made))
    for annotated in source.images:
        if len(listed := splits.get(annotated.file, set())) == 1:
            annotated.split = min(listed)
    set_groups_and_splits(source, folder)
    return source, problems


def _note_unused_categories(files: Iterable[CocoFile]) -> list[str]:
    used = {name for coco in files for name in coco.used_categories}
    unused = {name for coco in files for name in coco.categories} - used
    if not unused:
        return []
    listed = ", ".join(map(repr, sorted(unused)))
    return [f"categories that no annotation uses, {len(unused)} in all: {listed}"]


def _note_several_splits(splits: Mapping[Path, set[Split]]) -> list[str]:
    images = [image for image, listed in splits.items() if len(listed) > 1]
    if not images:
        return []
    return [f"{len(images)} picture(s) are listed for several splits, such as {images[0]}; that is not used"]


def _split_of_file(folder: SourceFolder, file: Path) -> Split | None:
    """Return the split named by the folders that a COCO file lies in, else by the words of its name."""
    return split_in(file.relative_to(folder.root).parent.parts) or split_in(
        re.findall("[a-z0-9]+", file.stem)
    )


def _find_images(
    folder: SourceFolder, coco: CocoFile, split: Split | None
) -> tuple[Sequence[tuple[Path, Annotation]], list[str]]:
    """Find the image of each annotation.

    Returns (image, annotation) pairs, and at most one problem: it names the first image that is not found and
    counts the others.
    """
    pairs: list[tuple[Path, Annotation]] = []
    owners: dict[Path, str] = {}
    errors: list[str] = []
    for annotation in coco.annotations:
        try:
            image = folder.image_of(coco.file, annotation.image, split=split, owners=owners)
            pairs.append((image, annotation))
        except InputError as error:
            errors.append(str(error))
    if not errors:
        return pairs, []
    return pairs, [errors[0] + (f" (and {len(errors) - 1} more of its images)" if errors[1:] else "")]

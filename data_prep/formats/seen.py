"""Say what files a folder holds, for one of an unknown format and for files that a reader passed over."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from data_prep.annotations import AnnotatedSource
from data_prep.source_folder import IMAGE_SUFFIXES, SourceFolder
from llava.common.html.markup import readable

_FIRST_BYTES = 1 << 16
_SHOWN_KINDS, _SHOWN_NAMES, _SHOWN_LENGTH = 5, 8, 60
# Names of keys, tags and columns, in lower case and without punctuation, that places of objects have.
_PLACES = {
    "bbox",
    "bboxes",
    "boundingbox",
    "boundingboxes",
    "bndbox",
    "box",
    "boxes",
    "segmentation",
    "points",
}
_PLACES |= {"polygon", "polygons", "polyline", "shapes", "regions", "regionshapeattributes", "annotations"}
_PLACES |= {"xmin", "x1", "x0", "left", "xtl", "xcenter", "cx", "minx", "rle", "objects", "object", "tracks"}
_ARCHIVES = {".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"}
_VIDEOS = {".mp4", ".avi", ".mov", ".mkv", ".webm"}
_DATA = {".mat", ".npy", ".npz", ".h5", ".hdf5", ".pkl", ".xlsx", ".xls", ".ods", ".tfrecord", ".record"}
_DATA |= {".rec", ".lst", ".db", ".sqlite", ".parquet", ".arrow", ".svg", ".geojson", ".dcm"}


def describe_files(folder: SourceFolder) -> str:
    """Return which files there are that may be annotations, by what they hold, and what to do with tables,
    archives and videos; "" if there are none."""
    stems = {image.stem.casefold() for image in folder.images}
    files: dict[str, list[Path]] = defaultdict(list)
    for path in folder.files:
        if path.suffix.lower() not in IMAGE_SUFFIXES and (kind := _kind_of(path, stems)):
            files[kind].append(path)
    kinds = sorted(files, key=lambda kind: -len(files[kind]))
    listed = []
    for kind in kinds[:_SHOWN_KINDS]:
        example = files[kind][0]
        begins = f", that begins {_first_line(example)!r}" if example.suffix.lower() == ".txt" else ""
        listed.append(f"{len(files[kind])} {kind} (for instance {example.relative_to(folder.root)}{begins})")
    if len(kinds) > _SHOWN_KINDS:
        listed.append(f"{len(kinds) - _SHOWN_KINDS} more kind(s) of file")
    if masks := [image for image in folder.images if folder.in_mask_folder(image)]:
        example = masks[0].relative_to(folder.image_root)
        listed.append(f"{len(masks)} picture(s) in folders of masks or labels (for instance {example})")
    if not listed:
        return ""
    suffixes = {path.suffix.lower() for kind in kinds for path in files[kind]}
    return readable("; it holds " + ", ".join(listed) + "".join(_remedies(suffixes)))


def _remedies(suffixes: set[str]) -> Iterator[str]:
    if suffixes & {".csv", ".tsv"}:
        yield (
            "; if a table is of boxes, call its columns filename, class, xmin, ymin, xmax, ymax; if of "
            "questions, image, question, answer"
        )
    if suffixes & {".json", ".jsonl", ".ndjson", ".manifest", ".xml"}:
        yield (
            "; if these are annotations, export them from their tool as COCO, Pascal VOC or YOLO, or write a "
            'metadata.jsonl with a line {"file_name": ..., "objects": {"bbox": [[x, y, w, h], ...], '
            '"category": [...]}} for each picture'
        )
    if suffixes & {".parquet", ".arrow"}:
        yield "; if a table holds the pictures themselves, save them as files, with a metadata.jsonl beside"
    if suffixes & _ARCHIVES:
        yield "; unpack the archives"
    if suffixes & _VIDEOS:
        yield "; take pictures out of the videos (ffmpeg -i VIDEO frame_%06d.png)"


def passed_over(folder: SourceFolder, source: AnnotatedSource) -> list[str]:
    """Return a line for each kind of file that looks like annotations and that the source holds nothing
    of."""
    used = {annotation.file for image in source.images for annotation in image.annotations}
    files: dict[str, list[Path]] = defaultdict(list)
    for path in folder.named(".json", ".jsonl", ".xml", ".csv", ".tsv"):
        if path not in used and not _PLACES.isdisjoint(map(_plain, _names_in(path))):
            files[_kind_of(path, set())].append(path)
    return [
        readable(
            f"{paths[0]}: looks like annotations, but is nothing that the format {source.format} reads: "
            "passed over" + (f" (and {len(paths) - 1} more such file(s))" if paths[1:] else "")
        )
        for paths in files.values()
    ]


def _kind_of(path: Path, stems: set[str]) -> str:
    """Return what kind of file it is, as a plural without its number; "" for one that is no data.

    `stems` are those of images, in lower case: a text named like one may be its labels.
    """
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return f"{suffix[1:].upper()} file(s) with the columns {_listed(_columns(path))}"
    if suffix in (".json", ".jsonl", ".ndjson", ".manifest"):
        text = _start(path).lstrip()
        keys = list(_json_keys(text))
        depth = min((depth for depth, _ in keys), default=0)
        names = _listed(key for at, key in keys if at == depth)
        return (
            f"JSON file(s) of {'lists of ' if text.startswith('[') else ''}objects with {names or 'nothing'}"
        )
    if suffix == ".xml":
        return f"XML file(s) with the root <{_shortened(next(_tags(path), '?'))}>"
    if suffix == ".txt":
        if path.stem.casefold() in stems:
            return "text file(s) named like pictures"
        return "text file(s) of numbers" if len(re.findall(r"\d+\.?\d*", _first_line(path))) > 3 else ""
    return f"{suffix} file(s)" if suffix in _ARCHIVES | _VIDEOS | _DATA else ""


def _names_in(path: Path) -> Iterator[str]:
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return iter(_columns(path))
    return _tags(path) if suffix == ".xml" else (key for _, key in _json_keys(_start(path)))


def _start(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_FIRST_BYTES).decode("utf-8-sig", errors="replace")
    except OSError:
        return ""


def _first_line(path: Path) -> str:
    return _shortened(_start(path).strip().split("\n", 1)[0].strip())


def _columns(path: Path) -> list[str]:
    """Return the cells of the first row, by the delimiter that gives most."""
    line = _start(path).split("\n", 1)[0].strip()
    try:
        rows = [next(csv.reader([line], delimiter=delimiter), []) for delimiter in ",;\t|"]
    except csv.Error:
        return []
    return max(rows, key=len)


def _json_keys(text: str) -> Iterator[tuple[int, str]]:
    """Yield the keys of objects with their depth, in order, as far as the text goes."""
    depth = 0
    for match in re.finditer(r'"((?:[^"\\]|\\.)*)"(\s*:)?|[\[\]{}]', text):
        if match[2]:
            yield depth, match[1]
        elif match[1] is None:
            depth += 1 if match[0] in "[{" else -1


def _tags(path: Path) -> Iterator[str]:
    text = re.sub(r"(?s)<[?!].*?>", "", _start(path))
    return (match[1] for match in re.finditer(r"<([\w.:-]+)", text))


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def _listed(names: Iterable[str]) -> str:
    unique = list(dict.fromkeys(names))
    more = [f"{len(unique) - _SHOWN_NAMES} more"] if len(unique) > _SHOWN_NAMES else []
    return ", ".join([*map(_shortened, unique[:_SHOWN_NAMES]), *more])


def _shortened(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= _SHOWN_LENGTH else plain[: _SHOWN_LENGTH - 3] + "..."

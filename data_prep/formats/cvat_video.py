"""Read the tracks in CVAT's export of a video, "CVAT for video 1.1", as annotations of its frames.

The format: `<meta>` tells of each task the first and last frame and the step between frames (`frame_filter`);
a `<track label>` holds the shape of one object in each frame, or in key frames alone, between which CVAT
moves a box evenly; after a shape that is `outside` the object is out of view. Frames are pictures named by
number, as CVAT saves them (`frame_000012.PNG`), or counted from 1, as ffmpeg does.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from xml.etree.ElementTree import Element

from data_prep.annotations import Annotation
from data_prep.formats.cvat_shapes import add_shape, numbers_of
from data_prep.formats.fields import parse_class_name, parse_number, parse_size
from data_prep.formats.shapes import ShapeCollector
from data_prep.source_folder import SourceFolder, Split, split_in
from llava.common.errors import InputError

_NUMBER = re.compile(r"(.*?)(\d{1,9})")
_CORNERS = ("xtl", "ytl", "xbr", "ybr")


@dataclass(frozen=True)
class Video:
    """What `<meta>` says of a task: words that its files may be named by, its frames, and the (width, height)
    of them, None where not stated."""

    names: tuple[str, ...]
    frames: range
    size: tuple[float, float] | None


@dataclass(frozen=True)
class Track:
    """An object: `frames` are the numbers of those that its `shapes` are of, in order."""

    place: str
    class_name: str
    frames: list[int]
    shapes: list[Element]
    split: Split | None


@dataclass(frozen=True)
class Frame:
    """The picture of a frame, what is on it, and the split that its subset is, None if it is none."""

    file: Path
    annotation: Annotation
    split: Split | None


def read_video(folder: SourceFolder, file: Path, root: Element) -> tuple[list[Frame], list[str], list[str]]:
    """Read the tracks of one file.

    Returns:
        The frames that there are pictures of, a problem for each shape that cannot be used, and notes.

    Raises:
        InputError: There are no pictures that are its frames, or no telling which.
    """
    tracks: dict[str, list[Track]] = defaultdict(list)
    for position, element in enumerate(root.iterfind("track"), start=1):
        tracks[element.get("task_id", "")].append(_read_track(f"{file}, track {position}", element))
    frames: list[Frame] = []
    problems: dict[str, None] = {}
    notes: list[str] = []
    for task, tracks_of_task in tracks.items():
        video = _read_meta(file, root, task, tracks_of_task)
        pictures = _find_pictures(folder, file, video, notes)
        if absent := len(video.frames) - len(pictures):
            notes.append(f"{file}: {absent} frame(s) of its video have no picture here; passed over")
        unsure = 0
        for number, picture in sorted(pictures.items()):
            try:
                annotation = _annotate(file, video, picture, number, tracks_of_task)
            except InputError as error:
                problems[str(error)] = None
                continue
            unsure += annotation is None
            if annotation:
                frames.append(Frame(picture, annotation, tracks_of_task[0].split))
        if unsure:
            notes.append(
                f"{file}: {unsure} frame(s) between key frames of shapes that are no boxes left out; export "
                "every frame of them"
            )
    return frames, list(problems), notes


def _read_track(place: str, track: Element) -> Track:
    class_name = parse_class_name(track.get("label"))
    if class_name is None:
        raise InputError(f"{place} has no label")
    shapes: dict[int, Element] = {}
    for element in track:
        if element.tag != "attribute":
            (number,) = numbers_of(f"{place}: <{element.tag}>", element, "frame")
            shapes[int(number)] = element
    frames = sorted(shapes)
    split = split_in([track.get("subset", "")])
    return Track(place, class_name, frames, [shapes[frame] for frame in frames], split)


def _read_meta(file: Path, root: Element, task: str, tracks: Sequence[Track]) -> Video:
    """Read what `<meta>` says of the task with an id ("" if tracks name none)."""
    tasks = [
        *root.iterfind("meta/task"),
        *root.iterfind("meta/job"),
        *root.iterfind("meta/project/tasks/task"),
    ]
    of_task = [element for element in tasks if not task or element.findtext("id") == task]
    meta = of_task[0] if len(of_task) == 1 else Element("task")
    texts = {element.tag: (element.text or "").strip() for element in meta}
    filtered = re.search(r"step\s*=\s*(\d{1,6})", texts.get("frame_filter", ""))
    step = max(1, int(filtered[1])) if filtered else 1
    start = int(parse_number(texts.get("start_frame")) or 0)
    stop = int(parse_number(texts.get("stop_frame")) or start)
    seen = [
        frame
        for track in tracks
        for frame, shape in zip(track.frames, track.shapes, strict=True)
        if shape.get("outside") != "1"
    ]
    frames = range(start, stop + 1, step)
    if seen and not all(frame in frames for frame in seen):
        # The export of a job counts its first and last frame otherwise than its tracks do.
        frames = range(min(seen), max(seen) + 1, step)
    names = [root.findtext("meta/source") or "", texts.get("source", ""), texts.get("name", ""), file.name]
    stems = [PureWindowsPath(name.strip()).stem.casefold() for name in names if name.strip()]
    size = parse_size(meta.findtext("original_size/width"), meta.findtext("original_size/height"))
    return Video(tuple(stems), frames, size)


def _find_pictures(folder: SourceFolder, file: Path, video: Video, notes: list[str]) -> dict[int, Path]:
    """Return the picture of each frame, by the frame's number. `notes` gets a line if the pictures are not
    numbered as the frames are."""
    series: dict[tuple[Path, str], dict[int, Path]] = defaultdict(dict)
    for image in folder.images:
        if match := _NUMBER.fullmatch(image.stem):
            series[image.parent, match[1].casefold()][int(match[2])] = image
    if not series:
        raise InputError(
            f"{file}: holds the tracks of a video, but no picture here is named by the number of its frame "
            "(frame_000012.png); export with 'Save images', or name the pictures' folder with --image-folder"
        )

    def rank(key: tuple[Path, str]) -> tuple[bool, int]:
        parent, prefix = key
        words = [
            *(part.casefold() for part in parent.relative_to(folder.image_root).parts),
            prefix.strip("_- ."),
        ]
        shared = sum(1 for one, other in zip(parent.parts, file.parent.parts, strict=False) if one == other)
        return any(name in words for name in video.names), shared

    best = max(map(rank, series))
    nearest = [key for key in series if rank(key) == best]
    if len(nearest) > 1:
        listed = " and ".join(str(min(series[key].values())) for key in nearest[:2])
        raise InputError(
            f"{file}: {listed} could both be frames of its video; name a folder of frames like the XML file"
        )
    pictures = series[nearest[0]]
    numbering, frame_of = _numbering(file, video.frames, pictures)
    if numbering:
        notes.append(f"{file}: its pictures are {numbering}, such as {pictures[min(pictures)].name}")
    return {frame_of(number): picture for number, picture in pictures.items()}


def _numbering(file: Path, frames: range, pictures: Mapping[int, Path]) -> tuple[str, Callable[[int], int]]:
    """Find how pictures are numbered: in words, "" if by their frames, and the frame of a number.

    InputError if no way fits all pictures, or if two are as likely.
    """
    ways: dict[str, Callable[[int], int]] = {
        "": lambda number: number,
        "numbered one by one from 0": lambda number: frames.start + number * frames.step,
        "numbered one by one from 1": lambda number: frames.start + (number - 1) * frames.step,
        "numbered by their frames, counted from 1": lambda number: number - 1,
    }
    fitting = [
        way for way, frame_of in ways.items() if all(frame_of(number) in frames for number in pictures)
    ]
    spans = f"frames {frames.start} to {frames[-1] if frames else frames.stop}, every {frames.step}"
    numbers = f"pictures {min(pictures)} to {max(pictures)}"
    if not fitting:
        raise InputError(
            f"{file}: its {spans} do not fit the {numbers} ({pictures[min(pictures)].parent}); name each "
            "picture by the number of its frame (frame_000012.png)"
        )
    counted_from_1 = list(pictures) == list(range(1, len(pictures) + 1)) and len(pictures) >= len(frames) - 1
    if fitting[0] == "" and len(fitting) > 1 and counted_from_1 and frames.start == 0 and len(pictures) > 1:
        raise InputError(
            f"{file}: no telling if the {numbers} are its {spans}, or are counted from 1; add the missing one"
        )
    return fitting[0], ways[fitting[0]]


def _annotate(
    file: Path, video: Video, picture: Path, number: int, tracks: Sequence[Track]
) -> Annotation | None:
    """Return the annotation of frame `number`, whose image is `picture`; None if a shape between key frames
    cannot be told."""
    shapes = ShapeCollector()
    for track in tracks:
        element = _shape_at(track, number)
        if element is None:
            return None
        if element.tag != "outside":
            frame = element.get("frame")
            add_shape(element, track.class_name, f"{track.place}, frame {frame} ({track.class_name})", shapes)
    shapes.note_left_out(f"{file}, frame {number}: shapes without an area or out of view left out")
    return Annotation(file, picture.name, video.size, shapes.shapes, notes=tuple(shapes.notes))


_OUTSIDE = Element("outside")


def _shape_at(track: Track, number: int) -> Element | None:
    """Return a track's shape in a frame, `_OUTSIDE` where it is out of view, None where it cannot be told."""
    index = bisect_right(track.frames, number) - 1
    if index < 0 or track.shapes[index].get("outside") == "1":
        return _OUTSIDE
    before = track.shapes[index]
    if track.frames[index] == number or index + 1 == len(track.frames):
        return before
    after = track.shapes[index + 1]
    if before.tag != "box" or after.tag != "box":
        return None
    share = (number - track.frames[index]) / (track.frames[index + 1] - track.frames[index])
    return _between(track, before, after, share, number)


def _between(track: Track, before: Element, after: Element, share: float, number: int) -> Element:
    """Return the box `share` of the way from one to another, turned the shorter way."""
    values = []
    for element in (before, after):
        rotation = parse_number(element.get("rotation")) or 0.0
        values.append(
            [*numbers_of(f"{track.place}, frame {element.get('frame')}", element, *_CORNERS), rotation]
        )
    start, end = values
    end[4] = start[4] + (end[4] - start[4] + 180) % 360 - 180
    *corners, rotation = _mixed(start, end, share)
    written = dict(zip((*_CORNERS, "rotation"), [*corners, rotation % 360], strict=True))
    return Element("box", {name: repr(value) for name, value in written.items()} | {"frame": str(number)})


def _mixed(start: Sequence[float], end: Sequence[float], share: float) -> Iterator[float]:
    for one, other in zip(start, end, strict=True):
        yield one + share * (other - one)

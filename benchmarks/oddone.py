"""Measures how often `llava-inspect oddone` names the damaged unit, is sure of it, and finds the string.

    python -m benchmarks.oddone --cplid ../shared/data/cplid --scenes playground/scenes --output oddone.json

Prints Markdown tables with 95% intervals (Wilson): one of all photos, then one a kind with larger boxes.
CPLID's folder holds Defective_Insulators and Normal_Insulators; the scenes are those of `llava-inspect
scenes`, of which the strings that are sound or have a missing or a broken disc alone are taken. What is
absent is left out with a message. A unit is right when its middle lies within one unit of the defect box's
middle, along the string. A string counts as found without a box when seven tenths of its units' middles lie
in one insulator's box and reach over half of its diagonal. Seconds are those of one core; the time to read
the photo is not among them.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from llava.common.images import open_image
from llava.oddone import Box, OddResult, find_odd

SCENE_DEFECTS = ("missing disc", "broken disc")
TIGHT, NO_BOX = "as annotated", "none"
BOXES = {
    TIGHT: 0.0,
    "a quarter larger on each side": 0.25,
    "half as large again on each side": 0.5,
    NO_BOX: None,
}
"""By how much of its width and height the annotated box is enlarged on each side."""


@dataclass(frozen=True)
class Photo:
    """A photo, its insulators' boxes (the largest is looked at) and its defect's, None of a sound string."""

    kind: str
    path: Path
    strings: list[Box]
    defect: Box | None


@dataclass(frozen=True)
class Outcome:
    """What was found in a photo with one of BOXES.

    `rank` is the damaged unit's among the compared ones, from 0; None where it is not among them or the
    string is sound. `found` is whether the units are those of an insulator.
    """

    kind: str
    photo: str
    box: str
    sound: bool
    rank: int | None
    sure: bool
    gap: float
    units: int
    found: bool
    seconds: float


def read_boxes(path: Path) -> list[tuple[str, Box]]:
    def corner(thing: ElementTree.Element, name: str) -> float:
        return float(thing.findtext(f"bndbox/{name}") or 0)

    return [
        (
            thing.findtext("name") or "",
            (corner(thing, "xmin"), corner(thing, "ymin"), corner(thing, "xmax"), corner(thing, "ymax")),
        )
        for thing in ElementTree.parse(path).iter("object")
    ]


def cplid(folder: Path) -> Iterator[Photo]:
    defective, normal = folder / "Defective_Insulators", folder / "Normal_Insulators"
    for path in sorted((defective / "images").glob("*.jpg")):
        strings = [box for _, box in read_boxes(defective / "labels" / "insulator" / f"{path.stem}.xml")]
        ((_, defect),) = read_boxes(defective / "labels" / "defect" / f"{path.stem}.xml")
        yield Photo("CPLID, defective", path, strings, defect)
    for path in sorted((normal / "images").glob("*.jpg")):
        boxes = [box for _, box in read_boxes(normal / "labels" / f"{path.stem}.xml")]
        yield Photo("CPLID, sound", path, boxes, None)


def scenes(folder: Path) -> Iterator[Photo]:
    for path in sorted((folder / "images").glob("*.jpg")):
        boxes = read_boxes(folder / "annotations" / f"{path.stem}.xml")
        strings = [box for name, box in boxes if name == "insulator"]
        defects = [(name, box) for name, box in boxes if name != "insulator"]
        if not defects:
            yield Photo("rendered, sound", path, strings, None)
        elif len(defects) == 1 and defects[0][0] in SCENE_DEFECTS:
            yield Photo(f"rendered, {defects[0][0]}", path, strings, defects[0][1])


def look(photo: Photo) -> list[Outcome]:
    """Return the outcome with each of BOXES."""
    image = open_image(photo.path)
    return [look_with(photo, image, box) for box in BOXES]


def look_with(photo: Photo, image: Image.Image, box: str) -> Outcome:
    largest = max(photo.strings, key=lambda one: (one[2] - one[0]) * (one[3] - one[1]))
    margin = BOXES[box]
    start = time.perf_counter()
    result = find_odd(image, None if margin is None else enlarged(largest, margin))
    return Outcome(
        kind=photo.kind,
        photo=photo.path.name,
        box=box,
        sound=photo.defect is None,
        rank=rank_of(result, photo.defect) if photo.defect else None,
        sure=bool(result.odd and result.odd.sure),
        gap=result.odd.gap if result.odd else 0.0,
        units=len(result.units),
        found=any(runs_in(result, string) for string in photo.strings),
        seconds=time.perf_counter() - start,
    )


def enlarged(box: Box, margin: float) -> Box:
    across, down = margin * (box[2] - box[0]), margin * (box[3] - box[1])
    return box[0] - across, box[1] - down, box[2] + across, box[3] + down


def rank_of(result: OddResult, defect: Box) -> int | None:
    """Return the place of the unit at the defect among the compared units, the oddest being 0."""
    middle = np.array([(defect[0] + defect[2]) / 2, (defect[1] + defect[3]) / 2])
    for rank, index in enumerate(result.ranked()):
        corners = np.array(result.units[index].polygon)
        along = (corners[1] + corners[2] - corners[0] - corners[3]) / 2
        if abs((middle - corners.mean(0)) @ along) <= along @ along:
            return rank
    return None


def runs_in(result: OddResult, box: Box) -> bool:
    """Return whether the units are those of the insulator in a box."""
    middles = np.array([np.mean(unit.polygon, 0) for unit in result.units])
    if not len(middles):
        return False
    inside = ((middles > np.array(box[:2])) & (middles < np.array(box[2:]))).all(1)
    if inside.mean() < 0.7:
        return False
    reach = np.linalg.norm(middles[inside][-1] - middles[inside][0])
    return bool(reach > 0.5 * math.hypot(box[2] - box[0], box[3] - box[1]))


def share(hits: Sequence[bool]) -> str:
    """Return a share with its 95% interval (Wilson's)."""
    count = len(hits)
    if not count:
        return "none"
    z, p = 1.96, sum(hits) / count
    middle = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return f"{p:.2f} [{max(0.0, middle - half):.2f}, {min(1.0, middle + half):.2f}] of {count}"


def verdicts(rows: Sequence[Outcome]) -> list[str]:
    """Return the columns of VERDICTS."""
    named = [row for row in rows if not row.sound]
    return [
        share([row.rank == 0 for row in named]) if named else "",
        share([row.rank is not None and row.rank < 3 for row in named]) if named else "",
        share([row.sure for row in rows]),
        share([row.rank == 0 for row in named if row.sure]) if named else "",
    ]


VERDICTS = ("first", "among three", "sure", "right where sure")


def print_tables(outcomes: Sequence[Outcome]) -> None:
    kinds = list(dict.fromkeys(row.kind for row in outcomes))

    def rows_of(kind: str, box: str) -> list[Outcome]:
        return [row for row in outcomes if row.kind == kind and row.box == box]

    def seconds(rows: Sequence[Outcome]) -> str:
        return f"{np.median([row.seconds for row in rows]):.1f}"

    print_row("photos", *VERDICTS, "string found without a box", "seconds with a box", "without")
    print_row(*["---"] * (len(VERDICTS) + 4))
    for kind in kinds:
        boxed, whole = rows_of(kind, TIGHT), rows_of(kind, NO_BOX)
        found = share([row.found for row in whole])
        print_row(kind, *verdicts(boxed), found, seconds(boxed), seconds(whole))
    for kind in kinds:
        print()
        print_row(f"box ({kind})", *VERDICTS)
        print_row(*["---"] * (len(VERDICTS) + 1))
        for box in BOXES:
            print_row(box, *verdicts(rows_of(kind, box)))


def print_row(*cells: str) -> None:
    print("|", " | ".join(cells), "|")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cplid", type=Path, default=Path("../shared/data/cplid"))
    parser.add_argument("--scenes", type=Path, default=Path("playground/scenes"))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--output", type=Path, help="write the outcome of each photo as JSON")
    args = parser.parse_args()
    photos: list[Photo] = []
    for folder, read in ((args.cplid, cplid), (args.scenes, scenes)):
        if folder.is_dir():
            photos += read(folder)
        else:
            print(f"{folder} is absent and left out", file=sys.stderr)
    if not photos:
        return 1
    with ProcessPoolExecutor(args.workers, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        outcomes = [outcome for found in pool.map(look, photos, chunksize=4) for outcome in found]
    print_tables(outcomes)
    if args.output:
        args.output.write_text(json.dumps([asdict(row) for row in outcomes], indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

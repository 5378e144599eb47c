"""Find out how YOLO labels in pixels are meant: only those in fractions of the image have one meaning."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from data_prep.formats.outlines import bounding_box
from data_prep.formats.yolo_labels import centre_and_sides
from llava.common.boxes import Box

Reading = Callable[[Sequence[float]], Box]
Measured = tuple[Sequence[float], tuple[int, int]]
"""The numbers of a box or outline, and the (width, height) of its image."""

READINGS: dict[str, Reading] = {
    "centre x, centre y, width, height": centre_and_sides,
    "left, top, width, height": lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3]),
    "left, top, right, bottom": lambda box: (box[0], box[1], box[2], box[3]),
}
_TOLERANCE = 1.0  # pixels by which a box may reach out of its image


def find_reading(measured: Sequence[Measured]) -> str | list[str]:
    """Find the one way to read numbers as pixels by which every box lies in its image.

    It is certain only if every other way fails for two boxes and for 5% of them, since one may be drawn
    badly; and if a number is above 100 and a box lies beyond the middle of its image, since others may be
    percents or thousandths.

    Returns:
        Its name in `READINGS`; else the names of all ways by which the boxes would lie in their images.
    """
    boxes = [(numbers, size) for numbers, size in measured if len(numbers) == 4]
    outlines = [(_around(numbers), size) for numbers, size in measured if len(numbers) > 4]
    if not all(_fits(box, size) for box, size in outlines):
        return []
    failures = {
        name: sum(not _fits(box_of(numbers), size) for numbers, size in boxes)
        for name, box_of in READINGS.items()
    }
    fitting = [name for name, count in failures.items() if not count]
    rivals = [count for count in failures.values() if count]
    if boxes and (len(fitting) != 1 or min(rivals) < max(2, 0.05 * len(boxes))):
        return fitting
    extents = outlines + [(READINGS[fitting[0]](numbers), size) for numbers, size in boxes]
    reaches_far = any(box[2] > size[0] / 2 and box[3] > size[1] / 2 for box, size in extents)
    exceeds_percents = any(max(numbers) > 100 for numbers, _ in measured)
    return fitting[0] if reaches_far and exceeds_percents else fitting


def _around(numbers: Sequence[float]) -> Box:
    return bounding_box(list(zip(numbers[::2], numbers[1::2], strict=True)))


def _fits(box: Box, size: tuple[int, int]) -> bool:
    x1, y1, x2, y2 = box
    inside = min(x1, y1) >= -_TOLERANCE and x2 <= size[0] + _TOLERANCE and y2 <= size[1] + _TOLERANCE
    return inside and x2 - x1 >= 1 and y2 - y1 >= 1

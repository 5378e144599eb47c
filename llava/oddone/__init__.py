"""Which unit of an insulator string is unlike its neighbours: found in one photo, without any training."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image

from llava.common.environment import how_to_install
from llava.common.errors import InputError
from llava.oddone.result import Axis, Box, BoxError, Odd, OddResult, Unit

__all__ = ["Axis", "Box", "BoxError", "Odd", "OddResult", "Unit", "find_odd", "load_finder"]


def find_odd(image: Image.Image, box: Box | None = None, axis: int | None = None) -> OddResult:
    """Find a string in a photo, cut it into its units and say which one is unlike its neighbours.

    Args:
        image: The photo.
        box: x1, y1, x2, y2 around the string, in pixels; without it the whole photo is searched.
        axis: Which of the result's candidate axes to take, 0 being the best, which is taken unless given.

    Raises:
        InputError: the box (BoxError) or the axis cannot be used, or OpenCV or SciPy is not installed.
    """
    return load_finder()(image, box, axis)


def load_finder() -> Callable[[Image.Image, Box | None, int | None], OddResult]:
    """Return the function behind `find_odd`; InputError if OpenCV or SciPy is not installed."""
    try:
        from llava.oddone.find import find
    except ImportError as error:
        raise InputError(
            f"{error.name} is not installed; to look for the odd unit: {how_to_install('oddone')}"
        ) from None
    return find

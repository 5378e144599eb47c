"""Parse single values of annotation files: numbers, class names and stated image sizes."""

from __future__ import annotations

import re

# No coordinate of an image comes near; sums and products of such numbers stay finite.
_MAX_NUMBER = 1e9


def parse_number(value: object) -> float | None:
    """Return a JSON number, or the number that a text holds, as a float.

    None if `value` is neither, and for numbers that are not finite or absurdly large.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < _MAX_NUMBER else None


def parse_class_name(value: object) -> str | None:
    """Return a class name on one line, without spaces around it.

    None if `value` is no text, blank, or holds half of a surrogate pair, which no file can hold.
    """
    if not isinstance(value, str) or re.search("[\ud800-\udfff]", value):
        return None
    return " ".join(value.split()) or None


def parse_size(width: object, height: object) -> tuple[float, float] | None:
    """Return the (width, height) that a file states for an image; None where absent or less than a pixel."""
    parsed_width, parsed_height = parse_number(width), parse_number(height)
    if parsed_width and parsed_height and parsed_width >= 1 and parsed_height >= 1:
        return parsed_width, parsed_height
    return None

"""Read lists of classes as they lie beside masks: which value or colour of a mask is what."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.annotations import plain_name
from data_prep.source_folder import IMAGE_SUFFIXES, SourceFolder
from llava.common.errors import InputError
from llava.common.files import read_text

_FILE = re.compile(
    r"(?:.*[_-])?(?:classes|class[_-]?names?|class[_-]?dict|labels?|label[_-]?names?|label[_-]?map|"
    r"label[_-]?colou?rs?|codes|categories|names)\.(?:txt|csv)",
    re.I,
)
_MAX_CLASSES, _MAX_NAME = 512, 80
_NOTHING = {"background", "ignore", "void", "bg", "unlabeled", "unlabelled", "none", "unknown class"}


def is_nothing(name: str) -> bool:
    """Return whether a class is the background, or what was not labelled."""
    return plain_name(name).strip() in _NOTHING


@dataclass
class ClassList:
    """Names by their order, by the values that the list states, and by colour.

    A colour is red << 16 | green << 8 | blue.
    """

    file: Path
    ordered: list[str] = field(default_factory=list)
    by_value: dict[int, str] = field(default_factory=dict)
    by_colour: dict[int, str] = field(default_factory=dict)

    @property
    def is_plausible(self) -> bool:
        """Whether it may be a list of classes, and no table of pictures."""
        suffixes = tuple(IMAGE_SUFFIXES)
        return 0 < len(self.ordered) <= _MAX_CLASSES and not any(
            len(name) > _MAX_NAME or name.casefold().endswith(suffixes) for name in self.ordered
        )

    def says_the_same(self, other: ClassList) -> bool:
        return (self.ordered, self.by_value, self.by_colour) == (
            other.ordered,
            other.by_value,
            other.by_colour,
        )

    def name_values(self, values: set[int]) -> dict[int, str]:
        """Return what the grey values of all masks are called; 0 and 255 may have no name.

        InputError if the list does not tell.
        """
        if self.by_value:
            return self.by_value
        names = self.ordered[1:] if self.ordered and "ignore" in plain_name(self.ordered[0]) else self.ordered
        found = {value for value in values if value not in (0, 255)}
        if any(map(is_nothing, names)):
            return dict(enumerate(names))
        if len(names) == 1 or (values - {0} == {255} and len(names) < 2):
            return dict.fromkeys(values - {0}, names[0])
        if found and max(found) == len(names):
            return dict(enumerate(names, start=1))
        raise InputError(
            f"{self.file}: does not tell which value of a mask is which class; write the name of the "
            "background (value 0) as its first line"
        )


class ClassLists:
    """The lists of classes of a folder. InputError if one of them cannot be read."""

    def __init__(self, folder: SourceFolder) -> None:
        self._lists = [
            found
            for path in folder.named(".txt", ".csv")
            if _FILE.fullmatch(path.name) and (found := _read_list(path)).is_plausible
        ]

    def of(self, mask: Path) -> ClassList | None:
        """Return the list for a mask: the one in the nearest folder above it, else the only one.

        InputError if there are several elsewhere that say otherwise.
        """
        if not self._lists:
            return None
        above = [found for found in self._lists if found.file.parent in mask.parents]
        nearest = max((len(found.file.parent.parts) for found in above), default=0)
        lists = [found for found in above if len(found.file.parent.parts) == nearest] or self._lists
        first, *others = lists
        for other in others:
            if not first.says_the_same(other):
                raise InputError(f"{other.file}: names other classes than {first.file}; keep one of them")
        return first


def _read_list(path: Path) -> ClassList:
    """Read `name`, `value name`, `name r g b`, `r g b name` or CVAT's `name:r,g,b::` on each line.

    A first line that no number is in, where the others have some, is a header.
    """
    lines = [line.strip() for line in read_text(path).splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    classes = ClassList(path)
    has_numbers = [_take_apart(line)[1] != () for line in lines]
    if len(lines) > 1 and not has_numbers[0] and all(has_numbers[1:]):
        lines = lines[1:]
    for line in lines:
        name, numbers = _take_apart(line)
        if not name:
            continue
        classes.ordered.append(name)
        if len(numbers) == 3:
            red, green, blue = numbers
            classes.by_colour[red << 16 | green << 8 | blue] = name
        elif len(numbers) == 1:
            classes.by_value[numbers[0]] = name
    if len(classes.by_value) < len(classes.ordered):  # `crack 2` is a name where others have no number
        classes.by_value = {}
    return classes


def _take_apart(line: str) -> tuple[str, tuple[int, ...]]:
    """Return the name and the numbers of a line: a colour, a value, or none."""
    match = re.fullmatch(r"(.+?):(\d+),(\d+),(\d+)(?::.*)?", line)  # CVAT
    if match:
        return match[1].strip(), tuple(min(int(part[:4]), 255) for part in match.groups()[1:])
    parts = [part for part in re.split(r"[,;\t]\s*|\s+|:\s+", line) if part]
    leading = next((index for index, part in enumerate(parts) if not part.isdecimal()), len(parts))
    trailing = next((index for index, part in enumerate(parts[::-1]) if not part.isdecimal()), len(parts))
    for count in (3, 1):
        if leading == count:
            return " ".join(parts[count:]).strip(), tuple(min(int(part[:4]), 255) for part in parts[:count])
        if trailing == count and (count == 3 or re.search(r"[,;\t]", line)):
            return " ".join(parts[:-count]).strip(), tuple(min(int(part[:4]), 255) for part in parts[-count:])
    return line.rstrip(",;"), ()

"""Tells components, defects and what is sound apart, by names of classes and by which boxes lie in which."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from data_prep.annotations import plain_name
from data_prep.recipe.english import Meaning, as_noun, meaning_of, noun_phrase, readable
from data_prep.report.model import View
from llava.common.boxes import area, holds_centre

Role = Literal["component", "defect", "sound"]


@dataclass(frozen=True)
class FoundClass:
    """A class of the annotations: its names there, as they are written, what it is, `why` if not by its name;
    how a recipe calls it, and how a sentence says that there is one; in how many pictures and boxes it is."""

    names: tuple[str, ...]
    role: Role
    why: str
    word: str
    phrase: str
    pictures: int
    boxes: int

    @property
    def aliases(self) -> list[str]:
        """The names that a recipe would not take for `word`."""
        return [name for name in self.names if plain_name(name) != plain_name(self.word)]


@dataclass(frozen=True)
class FoundClasses:
    """The classes of a source. `objects`: nothing says that any of them is a defect, so all are kinds of
    things to look for, which a recipe lists as its defects."""

    components: tuple[FoundClass, ...]
    defects: tuple[FoundClass, ...]
    sound: tuple[FoundClass, ...]
    objects: bool


def find_classes(views: Sequence[View]) -> FoundClasses:
    """Find out what each class of the annotations is."""
    written: dict[str, set[str]] = {}
    boxes, pictures = Counter[str](), Counter[str]()
    labels: set[str] = set()
    for view in views:
        for name in (*(shape.name for shape in view.shapes), *view.labels):
            written.setdefault(plain_name(name), set()).add(name)
        boxes.update(plain_name(shape.name) for shape in view.shapes)
        pictures.update({plain_name(name) for name in view.classes})
        labels.update(map(plain_name, view.labels))
    names = sorted(written, key=lambda plain: (-pictures[plain], plain))
    roles, objects = _roles(names, labels, _surroundings(views))
    words = _words(names, written)
    groups: dict[str, list[str]] = {}
    for plain in names:  # two classes may come to be called the same
        groups.setdefault(words[plain].casefold(), []).append(plain)
    classes = [
        FoundClass(
            names=tuple(sorted(name for plain in group for name in written[plain])),
            role=roles[group[0]][0],
            why=roles[group[0]][1],
            word=words[group[0]],
            phrase=noun_phrase(words[group[0]]),
            pictures=sum(bool(set(map(plain_name, view.classes)) & set(group)) for view in views),
            boxes=sum(boxes[plain] for plain in group),
        )
        for group in groups.values()
    ]

    def of_role(role: Role) -> tuple[FoundClass, ...]:
        return tuple(found for found in classes if found.role == role)

    return FoundClasses(of_role("component"), of_role("defect"), of_role("sound"), objects)


def _surroundings(views: Iterable[View]) -> dict[str, str]:
    """Return the class that most boxes of a class lie in, for each class of which that is so."""
    count, inside = Counter[str](), Counter[tuple[str, str]]()
    for view in views:
        for shape in view.shapes:
            name = plain_name(shape.name)
            count[name] += 1
            inside.update(
                {
                    (name, plain_name(other.name))
                    for other in view.shapes
                    if plain_name(other.name) != name
                    and area(other.box) > area(shape.box)
                    and holds_centre(other.box, shape.box)
                }
            )
    most: dict[str, str] = {}
    for (name, other), number in sorted(inside.items(), key=lambda item: (item[1], item[0])):
        if number > count[name] / 2:
            most[name] = other
    return most


def _roles(
    names: Sequence[str], labels: set[str], surroundings: dict[str, str]
) -> tuple[dict[str, tuple[Role, str]], bool]:
    """Return the role of each class with the reason, and whether all are objects alike.

    Args:
        names: The classes.
        labels: Those that are given to whole pictures.
        surroundings: The class that most of a class's boxes lie in.
    """
    meanings: dict[str, Meaning] = {name: meaning_of(name) for name in names}
    roles: dict[str, tuple[Role, str]] = {}
    for name, meaning in meanings.items():
        if meaning in ("sound", "defect"):
            roles[name] = (meaning, "")
        elif meaning == "part":
            roles[name] = ("component", "")
        elif held := [inner for inner, outer in surroundings.items() if outer == name]:
            roles[name] = ("component", f"boxes of {held[0]!r} lie in its boxes")
        elif name in surroundings:
            roles[name] = ("defect", f"its boxes lie in those of {surroundings[name]!r}")
    if any(name in labels for name, (role, _) in roles.items() if role == "sound"):
        # Pictures are sorted into sound ones and others.
        roles = {name: ("defect", "other pictures are sound") for name in names if name in labels} | {
            name: found for name, found in roles.items() if name not in labels or found[0] != "component"
        }
    if not any(role == "defect" for role, _ in roles.values()):
        for name in names:
            if meanings[name] != "sound":
                roles[name] = ("defect", "a kind to look for")
        return roles, True
    for name in names:
        roles.setdefault(name, ("component", "nothing says that it is a defect; move it if it is one"))
    return roles, False


def _words(names: Iterable[str], written: dict[str, set[str]]) -> dict[str, str]:
    """Return what each class is called. A number at the end is left out unless it tells classes apart:
    `crack_1` alone is a crack."""
    words = {name: readable(min(written[name])) for name in names}
    stems = {name: re.sub(r"\s+\d+$", "", word) for name, word in words.items()}
    count = Counter(stems.values())
    return {
        name: as_noun(stems[name] if stems[name] and count[stems[name]] == 1 else word)
        for name, word in words.items()
    }

"""The facts of a report on annotated pictures, as plain values.

`inspect` makes a report of a folder as it is, `convert` one of what it wrote (conversion.py beside this
file). survey.py gathers what both show, box_sizes.py the sizes of boxes to a model; page.py makes a page of
it. The same input gives the same report.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from data_prep.annotations import Shape
from data_prep.model_inputs import MODEL_INPUTS, ModelInput
from data_prep.recipe.schema import Recipe
from data_prep.splits.splits import Leaks

SHOWN_LINES = 200  # of messages under a heading
THIN_SHARE = 0.1  # of the defects, from which a report warns
_MANY = 1000  # different answers of a task are counted up to here: free text has no end of them
# Bounds of the size histogram, in patches.
BOUNDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
Role = Literal["defect", "box", "component"]
ROLES: tuple[Role, ...] = ("defect", "box", "component")  # the order in which they are shown


@dataclass(frozen=True)
class Dialogue:
    """(question, answer) turns about a picture."""

    task: str
    turns: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class View:
    """What the model is shown, a picture or a crop, and what is annotated there.

    `file` holds its pixels. `image` is its name in the records, "" before a conversion; `split` is "" where
    nothing says one. Boxes are in pixels of `size` (width, height).
    """

    name: str
    file: Path
    size: tuple[float, float]
    shapes: tuple[Shape, ...] = ()
    labels: tuple[str, ...] = ()
    split: str = ""
    image: str = ""
    conversations: tuple[Dialogue, ...] = ()

    @property
    def classes(self) -> list[str]:
        return sorted({*(shape.name for shape in self.shapes), *self.labels})


@dataclass(frozen=True)
class Seen:
    """A source picture and the split that it is in, "" where it is in none."""

    name: str
    file: Path
    split: str = ""


@dataclass(frozen=True)
class Twin:
    """Two pictures whose hashes differ in `distance` bits; `pictures` are their thumbnails as data URIs."""

    distance: int
    first: Seen
    second: Seen
    images: tuple[str, str] = ("", "")

    @property
    def crossing(self) -> bool:
        return bool(self.first.split and self.second.split) and self.first.split != self.second.split


@dataclass(frozen=True)
class Twins:
    """Near-twins: `pairs` whose hashes differ in at most `within` bits, `pictures` that they take in, pairs
    `crossing` the splits that the pictures are in (None where they are in none), and what other ways to split
    would leak."""

    within: int
    pairs: int
    images: int
    crossing: int | None
    leaks: Leaks | None
    shown: tuple[Twin, ...]


@dataclass(frozen=True)
class ClassCount:
    """Boxes (or labels of whole pictures) of one class, and the views that show it, by split."""

    name: str
    role: Role
    boxes: Counter[str]
    views: Counter[str]


@dataclass(frozen=True)
class Sizes:
    """The shorter sides of the boxes of one role, in pixels of `eye`: how many between each two `BOUNDS`, and
    per class its name, count, median and how many are thinner than a patch."""

    model_input: ModelInput
    role: Role
    bins: tuple[int, ...]
    classes: tuple[tuple[str, int, float, int], ...]

    @property
    def count(self) -> int:
        return sum(self.bins)

    @property
    def thin(self) -> int:
        return sum(row[3] for row in self.classes)


@dataclass
class Answers:
    """The answers of one task in one split and language: how often each, up to `_MANY` different ones, of
    `count` questions. `turns` of longer conversations, which mix tasks, are only counted."""

    split: str
    task: str
    language: str
    type: str = ""
    count: int = 0
    turns: int = 0
    answers: Counter[str] = field(default_factory=Counter)

    def add(self, answer: str) -> None:
        if answer in self.answers or len(self.answers) < _MANY:
            self.answers[answer] += 1

    @property
    def commonest(self) -> tuple[str, float] | None:
        """The commonest answer and its share: what a model scores that always says it. None where no answer
        comes twice."""
        if not self.answers:
            return None
        answer, count = min(self.answers.items(), key=lambda item: (-item[1], item[0]))
        return (answer, count / self.count) if count > 1 else None

    @property
    def different(self) -> str:
        return f"{_MANY:,} or more" if len(self.answers) >= _MANY else str(len(self.answers) or "")


@dataclass(frozen=True)
class Sample:
    """A view to look at: its thumbnail as a data URI and some of the conversations about it; `more` are left
    out."""

    view: View
    image: str
    conversations: tuple[Dialogue, ...]
    more: int


@dataclass(frozen=True)
class Lines:
    """Messages under a heading; the first `SHOWN_LINES` of them are shown, or all if they are wanted
    `whole`."""

    heading: str
    about: str
    lines: Sequence[str]
    whole: bool = False


@dataclass
class Report:
    """All that a page shows. Parts that are empty are left out of it."""

    title: str
    facts: list[tuple[str, str]]
    unit: str  # what one view is called
    classes: list[ClassCount]
    splits: list[str]
    model_inputs: Sequence[ModelInput] = (
        MODEL_INPUTS  # the first is the model that warnings and samples are for
    )
    split_counts: dict[str, dict[str, int]] = field(default_factory=dict)  # split -> what -> how many
    mapping: list[tuple[str, str]] = field(default_factory=list)  # class as written, what becomes of it
    kinds: dict[str, Counter[str]] = field(default_factory=dict)  # split -> label -> views
    image_sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    sizes: list[Sizes] = field(default_factory=list)
    answers: list[Answers] = field(default_factory=list)
    twins: Twins | None = None
    samples: list[Sample] = field(default_factory=list)
    view_count: int = 0
    notes: list[Lines] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def roles_of(recipe: Recipe) -> dict[str, Role]:
    """The recipe's names of classes -> what they are."""
    roles: dict[str, Role] = {kind.name: "component" for kind in recipe.components}
    return roles | {kind.name: "defect" for kind in recipe.defects}


def unit_noun(recipe: Recipe) -> str:
    """What the recipe's questions are about."""
    return {"picture": "picture", "object": "crop", "tile": "tile"}[recipe.unit]

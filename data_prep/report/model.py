"""The content of a report on annotated images, as plain values.

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
from data_prep.splits.groups import Leaks

SHOWN_LINES = 200  # of messages under a heading
THIN_SHARE = 0.1  # of the defects, from which a report warns
_MANY = 1000  # different answers of a task are counted up to here: free text has no end of them
# Bounds of the size histogram, in patches.
BOUNDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
ShapeRole = Literal["defect", "box", "component"]
SHAPE_ROLES: tuple[ShapeRole, ...] = ("defect", "box", "component")  # the order in which they are shown


@dataclass(frozen=True)
class Dialogue:
    """(question, answer) turns about an image."""

    task: str
    turns: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class View:
    """An image, crop or tile that the model is asked about, and what is annotated on it.

    `file` holds its pixels. `image` is its name in the records, "" before a conversion; `split` is "" where
    none is stated. Boxes are in pixels of `size` (width, height).
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
class ComparedImage:
    """A source image that is compared with others, and the split that it is in, "" where it is in none."""

    name: str
    file: Path
    split: str = ""


@dataclass(frozen=True)
class AkinPair:
    """Two images that are not independent, how alike they are in words, and their thumbnails as data URIs."""

    likeness: str
    first: ComparedImage
    second: ComparedImage
    images: tuple[str, str] = ("", "")

    @property
    def crossing(self) -> bool:
        return bool(self.first.split and self.second.split) and self.first.split != self.second.split


@dataclass(frozen=True)
class AkinImages:
    """The images of a source that are not independent: what was looked for and what was not, in a `summary`;
    how many `pairs` were found, how many of them are `crossing` the splits (None without splits), what other
    ways to split would leak, and the pairs that are `shown`. `some_pairs` as `Check.some_pairs`: there
    are more pairs than were found."""

    summary: str
    pairs: int
    crossing: int | None
    leaks: Leaks | None
    shown: tuple[AkinPair, ...]
    some_pairs: bool = False


@dataclass(frozen=True)
class ClassCount:
    """How many boxes (or labels of whole images) of one class there are, and views that show it, by split."""

    name: str
    role: ShapeRole
    boxes: Counter[str]
    views: Counter[str]


@dataclass(frozen=True)
class ClassSizes:
    """The shorter sides of one class's boxes in model pixels: how many, the median, and how many `thin` ones
    are less than a patch."""

    name: str
    count: int
    median: float
    thin: int


@dataclass(frozen=True)
class BoxSizes:
    """The shorter sides of the boxes of one role, in pixels of `model_input`.

    `bins` count the boxes between each two `BOUNDS`.
    """

    model_input: ModelInput
    role: ShapeRole
    bins: tuple[int, ...]
    classes: tuple[ClassSizes, ...]

    @property
    def count(self) -> int:
        return sum(self.bins)

    @property
    def thin(self) -> int:
        return sum(row.thin for row in self.classes)


@dataclass
class AnswerCounts:
    """How often each answer of one task in one split and language is given, up to `_MANY` different ones, in
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
        """The commonest answer and its share, which a model scores that always gives it; None where no answer
        is given twice."""
        if not self.answers:
            return None
        answer, count = min(self.answers.items(), key=lambda item: (-item[1], item[0]))
        return (answer, count / self.count) if count > 1 else None

    @property
    def different(self) -> str:
        return f"{_MANY:,} or more" if len(self.answers) >= _MANY else str(len(self.answers) or "")


@dataclass(frozen=True)
class Sample:
    """A view shown as an example: its thumbnail and a `large` image for eyes better than the model's, as data
    URIs, and some of the conversations about it; `more` are left out."""

    view: View
    image: str
    large: str
    conversations: tuple[Dialogue, ...]
    more: int


@dataclass(frozen=True)
class MessageList:
    """Messages under a heading; the first `SHOWN_LINES` of them are shown, or all if `in_full`."""

    heading: str
    about: str
    lines: Sequence[str]
    in_full: bool = False


@dataclass
class Report:
    """Everything that the page shows; parts that are empty are left out."""

    title: str
    facts: list[tuple[str, str]]
    unit: str  # what one view is called
    classes: list[ClassCount]
    splits: list[str]
    model_inputs: Sequence[ModelInput] = MODEL_INPUTS  # warnings and samples are for the first
    split_counts: dict[str, dict[str, int]] = field(default_factory=dict)  # split -> what -> how many
    mapping: list[tuple[str, str]] = field(default_factory=list)  # class as written, what becomes of it
    kinds: dict[str, Counter[str]] = field(default_factory=dict)  # split -> label -> views
    image_sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    sizes: list[BoxSizes] = field(default_factory=list)
    answers: list[AnswerCounts] = field(default_factory=list)
    akin: AkinImages | None = None
    samples: list[Sample] = field(default_factory=list)
    view_count: int = 0
    notes: list[MessageList] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def roles_of(recipe: Recipe) -> dict[str, ShapeRole]:
    """Map the recipe's class names to their roles."""
    roles: dict[str, ShapeRole] = {kind.name: "component" for kind in recipe.components}
    return roles | {kind.name: "defect" for kind in recipe.defects}


def unit_noun(recipe: Recipe) -> str:
    """Return the word for what the recipe's questions are about."""
    return {"picture": "picture", "object": "crop", "tile": "tile"}[recipe.unit]

"""The facts of a report on annotated pictures: counts, box sizes as the model sees them, answers, near-twins.

`inspect` makes one of a folder as it is, `convert` one of what it wrote (data_prep/report_convert.py);
data_prep/report_page.py turns either into a page. The same input gives the same report.
"""

from __future__ import annotations

import base64
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from statistics import median, quantiles
from typing import Literal

from PIL import Image

from data_prep.annotations import SPLITS, Shape
from data_prep.recipe import Grouping, Recipe
from data_prep.splits import IntArray, Leaks
from llava.errors import InputError
from llava.pictures import open_picture

SAMPLES, TWIN_PAIRS, SHOWN_LINES = 24, 12, 200
TWIN_SIDE, SAMPLE_SIDE = 224, 448  # pixels of a thumbnail's longer side, the samples' at most
DEFAULT_TWINS = Grouping().twins or 0
THIN_SHARE = 0.1  # of the defects, from which a report warns
_TALKS = 6  # conversations under a sample
_MANY = 1000  # different answers of a task are counted up to here: free text has no end of them
# Bounds of the size histogram, in patches.
BOUNDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
Role = Literal["defect", "box", "component"]
ROLES: tuple[Role, ...] = ("defect", "box", "component")  # the order in which they are shown


@dataclass(frozen=True)
class Eye:
    """How a model sees: a picture padded to a square of `side` pixels, in patches of `patch` pixels."""

    name: str = "LLaVA-1.5"
    side: int = 336
    patch: int = 14

    def thickness(self, shape: Shape, size: tuple[float, float]) -> float:
        """The shorter side of a box in a picture of `size` (width, height), in the model's pixels."""
        x1, y1, x2, y2 = shape.box
        return min(x2 - x1, y2 - y1) * self.side / max(size)


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
    talks: tuple[Dialogue, ...] = ()

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
    pictures: tuple[str, str] = ("", "")

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
    pictures: int
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

    eye: Eye
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
    picture: str
    talks: tuple[Dialogue, ...]
    more: int


@dataclass(frozen=True)
class Lines:
    """Messages under a heading; the first `SHOWN_LINES` of them are shown."""

    heading: str
    about: str
    lines: Sequence[str]


@dataclass
class Report:
    """All that a page shows. Parts that are empty are left out of it."""

    title: str
    facts: list[tuple[str, str]]
    unit: str  # what one view is called
    classes: list[ClassCount]
    splits: list[str]
    split_counts: dict[str, dict[str, int]] = field(default_factory=dict)  # split -> what -> how many
    mapping: list[tuple[str, str]] = field(default_factory=list)  # class as written, what becomes of it
    kinds: dict[str, Counter[str]] = field(default_factory=dict)  # split -> label -> views
    picture_sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    sizes: list[Sizes] = field(default_factory=list)
    answers: list[Answers] = field(default_factory=list)
    twins: Twins | None = None
    samples: list[Sample] = field(default_factory=list)
    view_count: int = 0
    notes: list[Lines] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def count_classes(views: Iterable[View], roles: Mapping[str, Role]) -> list[ClassCount]:
    """Per class, defects first, the commonest first."""
    boxes: dict[str, Counter[str]] = {}
    shown: dict[str, Counter[str]] = {}
    for view in views:
        for name in (*(shape.name for shape in view.shapes), *view.labels):
            boxes.setdefault(name, Counter())[view.split] += 1
        for name in view.classes:
            shown.setdefault(name, Counter())[view.split] += 1
    counts = [ClassCount(name, roles.get(name, "box"), boxes[name], shown[name]) for name in boxes]
    return sorted(counts, key=lambda row: (ROLES.index(row.role), -row.boxes.total(), row.name))


def box_sizes(views: Iterable[View], roles: Mapping[str, Role], eyes: Sequence[Eye]) -> list[Sizes]:
    """For each model and each role that has boxes."""
    found: dict[Role, dict[str, list[tuple[Shape, tuple[float, float]]]]] = {}
    for view in views:
        for shape in view.shapes:
            by_class = found.setdefault(roles.get(shape.name, "box"), {})
            by_class.setdefault(shape.name, []).append((shape, view.size))
    sizes = []
    for eye in eyes:
        for role in [role for role in ROLES if role in found]:
            bins = [0] * (len(BOUNDS) + 1)
            rows = []
            for name, shapes in sorted(found[role].items()):
                sides = [eye.thickness(shape, size) for shape, size in shapes]
                for side in sides:
                    bins[sum(side >= bound * eye.patch for bound in BOUNDS)] += 1
                thin = sum(side < eye.patch for side in sides)
                rows.append((name, len(sides), median(sides), thin))
            sizes.append(Sizes(eye, role, tuple(bins), tuple(rows)))
    return sizes


def thin_warnings(
    views: Sequence[View],
    sizes: Sequence[Sizes],
    roles: Mapping[str, Role],
    recipe: Recipe | None,
    converted: bool = False,
) -> list[str]:
    """A line for each model that most likely misses some of what it is to find, with what to do about it.
    `converted`: the views are the recipe's units, not pictures as they are in the source."""
    warnings = []
    for part in sizes:
        # Without a recipe nothing tells defects from the rest, so the classes that are thin speak.
        classes = [row for row in part.classes if part.role != "box" or row[3] >= THIN_SHARE * row[1]]
        count, thin = sum(row[1] for row in classes), sum(row[3] for row in classes)
        if part.role == "component" or not thin or thin < THIN_SHARE * count:
            continue
        eye, names = part.eye, {row[0] for row in classes}
        shares = [
            eye.thickness(shape, view.size) / eye.side
            for view in views
            for shape in view.shapes
            if shape.name in names
        ]
        tenth = quantiles(shares, n=10, method="inclusive")[0] if len(shares) > 1 else shares[0]
        widest = tenth * eye.side / eye.patch
        unit = unit_noun(recipe) if recipe and converted else "picture"
        what = "defects" if part.role == "defect" else f"boxes of {_named(sorted(names))}"
        lines = [
            f"{thin:,} of {count:,} {what} ({thin / count:.0%}) are thinner than one {eye.patch}-pixel patch "
            f"when {eye.name} sees the whole {unit} at {eye.side} pixels: it may not see them at all.",
            f"Advice: {_ADVICE[unit]}.",
        ]
        if recipe and recipe.components and not converted:
            still = _thin_when_cropped(views, roles, eye, recipe.crops.context)
            lines.append(f"Cropped around each component, {still / count:.0%} would be thinner.")
        lines.append(
            f"Nine of ten are a patch or more thick in a crop or tile that spans at most {widest:.0%} of the "
            f"{unit}'s longer side."
        )
        warnings.append(" ".join(lines))
    return warnings


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


_ADVICE = {
    "picture": "crop around each component (unit: object in the recipe) or tile the pictures (unit: tile)",
    "crop": "cut smaller crops (crops.windows, crops.context in the recipe)",
    "tile": "cut smaller tiles (tiles.side in the recipe)",
}


def unit_noun(recipe: Recipe) -> str:
    """What the recipe's questions are about."""
    return {"picture": "picture", "object": "crop", "tile": "tile"}[recipe.unit]


def _thin_when_cropped(views: Iterable[View], roles: Mapping[str, Role], eye: Eye, context: float) -> int:
    """How many defects stay thinner than a patch in crops of whole components with that margin."""
    thin = 0
    for view in views:
        parts = [shape.box for shape in view.shapes if roles.get(shape.name) == "component"]
        for shape in view.shapes:
            if roles.get(shape.name, "box") != "defect":
                continue
            x, y = (shape.box[0] + shape.box[2]) / 2, (shape.box[1] + shape.box[3]) / 2
            sides = [
                max(x2 - x1, y2 - y1) * (1 + 2 * context)
                for x1, y1, x2, y2 in parts
                if x1 <= x <= x2 and y1 <= y <= y2
            ]
            side = min([*sides, max(view.size)])
            thin += eye.thickness(shape, (side, side)) < eye.patch
    return thin


def show_twins(
    pictures: Sequence[Seen],
    pairs: Iterable[tuple[int, IntArray, IntArray]],
    within: int,
    leaks: Leaks | None,
) -> Twins:
    """`pairs` are what near_twins gives for the pictures, in their order. Those to be shown: the divided ones
    first, then the nearest, each picture once as far as that goes."""
    count = crossing = 0
    taking_part: set[int] = set()
    candidates: list[tuple[bool, int, int, int]] = []
    for index, others, distances in pairs:
        count += len(others)
        taking_part |= {index, *others.tolist()}
        for other, distance in zip(others.tolist(), distances.tolist(), strict=True):
            across = Twin(distance, pictures[index], pictures[other]).crossing
            crossing += across
            candidates.append((not across, distance, index, other))
        if len(candidates) > 10_000:  # a film of a thousand like pictures has half a million pairs
            candidates = _apart(candidates)
    shown = []
    for _, distance, index, other in _apart(candidates):
        one, two = pictures[index], pictures[other]
        stills = (thumbnail(one.file, TWIN_SIDE), thumbnail(two.file, TWIN_SIDE))
        shown.append(Twin(distance, one, two, stills))
    known = any(seen.split for seen in pictures)
    return Twins(within, count, len(taking_part), crossing if known else None, leaks, tuple(shown))


def _apart(candidates: Sequence[tuple[bool, int, int, int]]) -> list[tuple[bool, int, int, int]]:
    """The first `TWIN_PAIRS` pairs, those of pictures that are in no earlier pair before others."""
    ordered = sorted(candidates)
    used: set[int] = set()
    fresh = []
    for pair in ordered:
        if not used & {pair[2], pair[3]}:
            used |= {pair[2], pair[3]}
            fresh.append(pair)
    rest = sorted(set(ordered) - set(fresh))
    return sorted([*fresh, *rest][:TWIN_PAIRS])


def pick(views: Sequence[View], seed: int = 0) -> list[View]:
    """Up to `SAMPLES` views that show every split and every set of classes in turn."""
    strata: dict[tuple[str, tuple[str, ...]], list[View]] = {}
    for view in views:
        strata.setdefault((view.split, tuple(view.classes)), []).append(view)
    queues = [strata[key] for key in sorted(strata)]
    for number, queue in enumerate(queues):
        random.Random(f"{seed}/{number}").shuffle(queue)
    random.Random(seed).shuffle(queues)  # more strata than samples: not only the alphabet's first
    chosen: list[View] = []
    while len(chosen) < min(SAMPLES, len(views)):
        for queue in queues:
            if queue and len(chosen) < SAMPLES:
                chosen.append(queue.pop())
    order = {name: number for number, name in enumerate(("", *SPLITS))}
    return sorted(chosen, key=lambda view: (order.get(view.split, 9), view.classes, view.name))


def draw_samples(views: Sequence[View], talks: Mapping[str, Sequence[Dialogue]], eye: Eye) -> list[Sample]:
    """The views with their thumbnails: as large as the model sees them, so that what cannot be seen in the
    report cannot be seen by the model either. `talks` by image, where the views have none of their own."""
    samples = []
    for view in views:
        every = talks.get(view.image, view.talks)
        some = _of_each_task(every)
        picture = thumbnail(view.file, min(eye.side, SAMPLE_SIDE))
        samples.append(Sample(view, picture, some, len(every) - len(some)))
    return samples


def _of_each_task(talks: Sequence[Dialogue]) -> tuple[Dialogue, ...]:
    """Up to `_TALKS`: the first of each task, then the second of each."""
    seen: Counter[str] = Counter()
    ranked = []
    for number, talk in enumerate(talks):
        ranked.append((seen[talk.task], number))
        seen[talk.task] += 1
    return tuple(talks[number] for _, number in sorted(ranked)[:_TALKS])


def thumbnail(file: Path, side: int) -> str:
    """A picture as a JPEG data URI, its longer side at most `side` pixels; "" if it cannot be read."""
    try:
        picture = open_picture(file)
    except InputError:
        return ""
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    picture.save(buffer, format="JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def roles_of(recipe: Recipe) -> dict[str, Role]:
    """The recipe's names of classes -> what they are."""
    roles: dict[str, Role] = {kind.name: "component" for kind in recipe.components}
    return roles | {kind.name: "defect" for kind in recipe.defects}


def twin_warnings(twins: Twins) -> list[str]:
    if not twins.crossing:
        return []
    return [
        f"{twins.crossing} near-twin pair(s) lie in two splits: scores on the held-out pictures will be too "
        f"good. Group them (group.twins, group.pattern in the recipe)."
    ]

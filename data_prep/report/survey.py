"""Gathers what every report on annotated images shows: counts, box sizes, akin images, samples."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest

from data_prep.model_inputs import ModelInput
from data_prep.recipe.schema import Recipe
from data_prep.report.box_sizes import box_sizes, thin_warnings
from data_prep.report.model import (
    SHAPE_ROLES,
    AkinImages,
    AkinPair,
    ClassCount,
    ComparedImage,
    Dialogue,
    Report,
    Sample,
    ShapeRole,
    View,
    roles_of,
    unit_noun,
)
from data_prep.source_folder import SPLITS
from data_prep.splits.checks import Check, Pair, checks_text
from data_prep.splits.groups import Leaks
from llava.common.html.page import thumbnail, thumbnails

SAMPLES, SHOWN_PAIRS = 24, 12
# Pixels of a thumbnail's longer side: of akin images, of samples (at most) and of samples that are enlarged.
PAIR_SIDE, SAMPLE_SIDE, LARGE_SIDE = 224, 448, 640
_SHOWN_CONVERSATIONS = 6  # conversations under a sample


def survey(
    title: str,
    views: Sequence[View],
    chosen: Sequence[View],
    images: Sequence[ComparedImage],
    checks: Sequence[Check],
    leaks: Leaks | None,
    recipe: Recipe | None,
    model_inputs: Sequence[ModelInput],
    *,
    converted: bool = False,
) -> Report:
    """Describe annotated images: classes, box sizes, akin images and samples.

    Args:
        title: The page's title.
        views: What is described.
        chosen: The views to show as samples (`choose_samples`).
        images: The source images.
        checks: What was looked for among them.
        leaks: What other ways to split would leak.
        recipe: Names the roles of classes; without one all are just boxes.
        model_inputs: The models whose view of box sizes is shown.
        converted: Whether the views are the recipe's units, not images as they are in the source.
    """
    roles = roles_of(recipe) if recipe else {}
    sizes = box_sizes(views, roles, model_inputs)
    akin = show_akin(images, checks, leaks)
    return Report(
        title=title,
        facts=[],
        unit=unit_noun(recipe) if recipe and converted else "picture",
        classes=count_classes(views, roles),
        splits=[split for split in ("", *SPLITS) if any(view.split == split for view in views)],
        model_inputs=model_inputs,
        image_sizes=Counter((round(view.size[0]), round(view.size[1])) for view in views),
        sizes=sizes,
        akin=akin,
        samples=draw_samples(chosen, model_inputs[0]),
        view_count=len(views),
        warnings=[
            *thin_warnings(views, sizes, roles, recipe, converted),
            *akin_warnings(akin),
        ],
    )


def count_classes(views: Iterable[View], roles: Mapping[str, ShapeRole]) -> list[ClassCount]:
    """Count each class; defects come first, and the commonest of them."""
    boxes: dict[str, Counter[str]] = {}
    shown: dict[str, Counter[str]] = {}
    for view in views:
        for name in (*(shape.name for shape in view.shapes), *view.labels):
            boxes.setdefault(name, Counter())[view.split] += 1
        for name in view.classes:
            shown.setdefault(name, Counter())[view.split] += 1
    counts = [ClassCount(name, roles.get(name, "box"), boxes[name], shown[name]) for name in boxes]
    return sorted(counts, key=lambda row: (SHAPE_ROLES.index(row.role), -row.boxes.total(), row.name))


def show_akin(images: Sequence[ComparedImage], checks: Sequence[Check], leaks: Leaks | None) -> AkinImages:
    """Count the pairs that checks found, and choose those to show: pairs that splits divide first, then some
    of each check, each image once as far as possible."""

    def crosses(pair: Pair) -> bool:
        return AkinPair(pair[2], images[pair[0]], images[pair[1]]).crossing

    count = sum(len(check.pairs) for check in checks)
    crossing = sum(crosses(pair) for check in checks for pair in check.pairs)
    # Of each check the first, then of each the second; no list of all, which may be more than images.
    ordered = (
        pair
        for across in (True, False)
        for row in zip_longest(*(check.pairs for check in checks))
        for pair in row
        if pair and crosses(pair) == across
    )
    shown = []
    for first, second, likeness in _apart(ordered):
        one, two = images[first], images[second]
        thumbnails = (thumbnail(one.file, PAIR_SIDE), thumbnail(two.file, PAIR_SIDE))
        shown.append(AkinPair(likeness, one, two, thumbnails))
    known = any(image.split for image in images)
    some = any(check.some_pairs for check in checks)
    return AkinImages(checks_text(checks), count, crossing if known else None, leaks, tuple(shown), some)


def _apart(pairs: Iterable[Pair]) -> list[Pair]:
    """Return the first `SHOWN_PAIRS` pairs, those of images that are in no earlier pair before others."""
    used: set[int] = set()
    fresh: list[Pair] = []
    rest: list[Pair] = []
    for pair in pairs:
        if len(fresh) == SHOWN_PAIRS:
            break
        if used & {pair[0], pair[1]}:
            rest = rest if len(rest) == SHOWN_PAIRS else [*rest, pair]
        else:
            used |= {pair[0], pair[1]}
            fresh.append(pair)
    return [*fresh, *rest][:SHOWN_PAIRS]


def choose_samples(views: Sequence[View], seed: int = 0) -> list[View]:
    """Choose up to `SAMPLES` views that show every split and every set of classes in turn."""
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


def draw_samples(views: Sequence[View], model_input: ModelInput) -> list[Sample]:
    """Make the views' thumbnails as large as the model sees them, so that what cannot be seen in them cannot
    be seen by the model either; and larger ones, to check annotations by."""
    samples = []
    for view in views:
        some = _of_each_task(view.conversations)
        image, large = thumbnails(view.file, (min(model_input.side, SAMPLE_SIDE), LARGE_SIDE))
        samples.append(Sample(view, image, large, some, len(view.conversations) - len(some)))
    return samples


def _of_each_task(conversations: Sequence[Dialogue]) -> tuple[Dialogue, ...]:
    """Choose up to `_SHOWN_CONVERSATIONS`: the first of each task, then the second of each."""
    counts: Counter[str] = Counter()
    ranked = []
    for number, conversation in enumerate(conversations):
        ranked.append((counts[conversation.task], number))
        counts[conversation.task] += 1
    return tuple(conversations[number] for _, number in sorted(ranked)[:_SHOWN_CONVERSATIONS])


def akin_warnings(akin: AkinImages) -> list[str]:
    if not akin.crossing:
        return []
    return [
        f"{akin.crossing} pair(s) of akin pictures lie in two splits: scores on the held-out pictures will "
        "be too good. Let the pictures be split anew (splits.given=ignore, the default)."
    ]

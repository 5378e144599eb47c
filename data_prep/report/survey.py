"""What every report on annotated pictures shows: counts, box sizes, near-twins side by side, samples."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from data_prep.model_inputs import ModelInput
from data_prep.recipe.schema import Grouping, Recipe
from data_prep.report.box_sizes import box_sizes, thin_warnings
from data_prep.report.model import (
    ROLES,
    ClassCount,
    Dialogue,
    Report,
    Role,
    Sample,
    Seen,
    Twin,
    Twins,
    View,
    roles_of,
    unit_noun,
)
from data_prep.source_folder import SPLITS
from data_prep.splits.splits import IntArray, Leaks, near_twins
from llava.common.html.page import thumbnail

SAMPLES, TWIN_PAIRS = 24, 12
TWIN_SIDE, SAMPLE_SIDE = 224, 448  # pixels of a thumbnail's longer side, the samples' at most
_TWINS_WITHIN = Grouping().twins or 0  # bits, where a recipe looks for none
_TALKS = 6  # conversations under a sample


def survey(
    title: str,
    views: Sequence[View],
    chosen: Sequence[View],
    images: Sequence[Seen],
    fingerprints: Sequence[bytes],
    leaks: Leaks | None,
    recipe: Recipe | None,
    model_inputs: Sequence[ModelInput],
    *,
    converted: bool = False,
) -> Report:
    """A report on `views`, with samples of the `chosen` ones (see `pick`) and near-twins among the source
    `pictures`, which have a fingerprint each. `converted`: the views are the recipe's units, not pictures as
    they are in the source. Without a recipe all classes are just boxes."""
    roles = roles_of(recipe) if recipe else {}
    sizes = box_sizes(views, roles, model_inputs)
    wanted = recipe.group.twins if recipe else None
    within = _TWINS_WITHIN if wanted is None else wanted
    twins = show_twins(images, near_twins(fingerprints, within), within, leaks)
    return Report(
        title=title,
        facts=[],
        unit=unit_noun(recipe) if recipe and converted else "picture",
        classes=count_classes(views, roles),
        splits=[split for split in ("", *SPLITS) if any(view.split == split for view in views)],
        model_inputs=model_inputs,
        image_sizes=Counter((round(view.size[0]), round(view.size[1])) for view in views),
        sizes=sizes,
        twins=twins,
        samples=draw_samples(chosen, model_inputs[0]),
        view_count=len(views),
        warnings=[*thin_warnings(views, sizes, roles, recipe, converted), *twin_warnings(twins)],
    )


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


def show_twins(
    images: Sequence[Seen],
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
            across = Twin(distance, images[index], images[other]).crossing
            crossing += across
            candidates.append((not across, distance, index, other))
        if len(candidates) > 10_000:  # a film of a thousand like pictures has half a million pairs
            candidates = _apart(candidates)
    shown = []
    for _, distance, index, other in _apart(candidates):
        one, two = images[index], images[other]
        stills = (thumbnail(one.file, TWIN_SIDE), thumbnail(two.file, TWIN_SIDE))
        shown.append(Twin(distance, one, two, stills))
    known = any(seen.split for seen in images)
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


def draw_samples(views: Sequence[View], model_input: ModelInput) -> list[Sample]:
    """The views with their thumbnails: as large as the model sees them, so that what cannot be seen in the
    report cannot be seen by the model either."""
    samples = []
    for view in views:
        some = _of_each_task(view.conversations)
        image = thumbnail(view.file, min(model_input.side, SAMPLE_SIDE))
        samples.append(Sample(view, image, some, len(view.conversations) - len(some)))
    return samples


def _of_each_task(conversations: Sequence[Dialogue]) -> tuple[Dialogue, ...]:
    """Up to `_TALKS`: the first of each task, then the second of each."""
    seen: Counter[str] = Counter()
    ranked = []
    for number, talk in enumerate(conversations):
        ranked.append((seen[talk.task], number))
        seen[talk.task] += 1
    return tuple(conversations[number] for _, number in sorted(ranked)[:_TALKS])


def twin_warnings(twins: Twins) -> list[str]:
    if not twins.crossing:
        return []
    return [
        f"{twins.crossing} near-twin pair(s) lie in two splits: scores on the held-out pictures will be too "
        f"good. Group them (group.twins, group.pattern in the recipe)."
    ]

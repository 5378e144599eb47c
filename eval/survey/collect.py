"""Collects sightings into findings.

Sightings of one kind in tiles that overlap are one finding; a photo in whose parts nothing was seen is one
sound finding; and the same finding in photos of one group (a burst of one pole) is one with several photos.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from eval.predict import AskedQuestion
from eval.survey.findings import Finding
from eval.survey.photos import PhotoFacts
from eval.survey.sightings import DEFECT, DecisionRule, Part, Sighting, Wordings, read_answers
from llava.common.boxes import Box, area, intersection

_SAME_PLACE = 0.1  # of the smaller of two places, that both have in common: then they are one
_WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


def find_in(
    parts: Sequence[Part],
    asked: Sequence[AskedQuestion],
    photos: Sequence[PhotoFacts],
    groups: Sequence[int],
    words: Wordings,
    rule: DecisionRule,
) -> list[Finding]:
    """Return what the answers say is there, in the order of the photos.

    Args:
        parts: What was asked about.
        asked: All questions with their answers; their photo is a part's name.
        photos: What is known of each photo.
        groups: The number of the group that each photo is in: photos of one may show the same.
        words: What the answers mean.
        rule: Turns the probability of a defect into a decision. This is the place where it is applied.
    """
    rows: dict[str, list[AskedQuestion]] = {part.name: [] for part in parts}
    for row in asked:
        rows[row.photo].append(row)
    sizes = {photo.name: photo.size for photo in photos if not photo.problem}
    sightings: dict[str, list[Sighting]] = {}
    parts_of = Counter(part.photo for part in parts)
    for part in parts:
        if size := sizes.get(part.photo):
            sightings.setdefault(part.photo, []).extend(
                read_answers(part, size, rows[part.name], words, rule, parts_of[part.photo])
            )
    return collect(photos, sightings, groups)


def collect(
    photos: Sequence[PhotoFacts], sightings: Mapping[str, Sequence[Sighting]], groups: Sequence[int]
) -> list[Finding]:
    """Return the findings, in the order of the photos.

    Args:
        photos: What is known of each photo.
        sightings: What was seen in all parts of a photo, by its name.
        groups: The number of the group that each photo is in: photos of one may show the same.
    """
    found: dict[tuple[object, ...], list[tuple[PhotoFacts, Sighting, int]]] = {}
    for photo, group in zip(photos, groups, strict=True):
        seen: Counter[tuple[object, ...]] = Counter()
        for sighting in _in_photo(photo, sightings.get(photo.name, ())):
            subject = (sighting.about, sighting.kind)
            number = seen[subject]  # two of one kind in a photo are two findings
            seen[subject] += 1
            where = photo.name if sighting.problem else group
            key = (where, *subject, sighting.decision, number)
            found.setdefault(key, []).append((photo, sighting, number))
    return [_finding(same) for same in found.values()]


def _in_photo(photo: PhotoFacts, sightings: Sequence[Sighting]) -> list[Sighting]:
    if photo.problem:
        return [Sighting(_WHOLE, DEFECT, "ask", "unreadable", problem=photo.problem)]
    if rest := [sighting for sighting in sightings if sighting.decision != "sound"]:
        return merge(rest)
    surest = max(sightings, key=lambda sighting: sighting.p_yes or 0.0)
    unusual = [sighting.novelty for sighting in sightings if sighting.novelty is not None]
    return [replace(surest, novelty=min(unusual, default=None))]


def merge(sightings: Sequence[Sighting]) -> list[Sighting]:
    """Merge the sightings of one photo that are of one kind and overlap, directly or in a chain."""
    clusters: list[list[Sighting]] = []
    for sighting in sightings:
        near = [cluster for cluster in clusters if any(_same(sighting, other) for other in cluster)]
        joined = [other for cluster in near for other in cluster]
        clusters = [cluster for cluster in clusters if cluster not in near] + [[*joined, sighting]]
    return [_merged(cluster) for cluster in clusters]


def _same(first: Sighting, second: Sighting) -> bool:
    if (first.kind, first.problem) != (second.kind, second.problem):
        return False
    smaller = min(area(first.region), area(second.region))
    return intersection(first.region, second.region) > _SAME_PLACE * smaller


def _merged(cluster: Sequence[Sighting]) -> Sighting:
    """Return the surest sighting, with the box around those in tiles: the edge of a tile may cut one short.
    The box of a photo that was asked about whole counts where no tile has one."""
    best = max(cluster, key=lambda sighting: (sighting.decision == "defect", sighting.p_yes or 0.0))
    if len(cluster) == 1:
        return best
    about = DEFECT if any(sighting.about == DEFECT for sighting in cluster) else best.about
    boxes = [sighting.box for sighting in cluster if sighting.box and sighting.tile != _WHOLE]
    boxes = boxes or [sighting.box for sighting in cluster if sighting.box][:1]
    maps = tuple(one for sighting in cluster for one in sighting.novelty_maps)
    return replace(best, about=about, box=_around(boxes) if boxes else None, novelty_maps=maps)


def _around(boxes: Sequence[Box]) -> Box:
    x1, y1, x2, y2 = zip(*boxes, strict=True)
    return min(x1), min(y1), max(x2), max(y2)


def _finding(same: Sequence[tuple[PhotoFacts, Sighting, int]]) -> Finding:
    """Return one finding for what several photos show; the surest of them stands for all."""
    photo, sighting, number = max(same, key=lambda item: item[1].p_yes or 0.0)
    identity = "\n".join((photo.name, sighting.about, sighting.kind or "", str(number)))
    return Finding(
        id=hashlib.sha256(identity.encode()).hexdigest()[:12],
        photo=photo.name,
        photos=[photo.name, *(other.name for other, _, _ in same if other is not photo)],
        asset=photo.asset,
        sha256=photo.sha256,
        width=photo.size[0] or None,
        height=photo.size[1] or None,
        time=photo.taken.time,
        latitude=photo.taken.latitude,
        longitude=photo.taken.longitude,
        altitude=photo.taken.altitude,
        about=sighting.about,
        decision=sighting.decision,
        reason=sighting.reason,
        p_yes=sighting.p_yes,
        kind=sighting.kind,
        kind_probability=_rounded(sighting.kind_probability),
        box=_rounded_box(sighting.box),
        place=sighting.place,
        count=sighting.count,
        report=sighting.report,
        novelty=_rounded(sighting.novelty),
        novelty_maps=list(sighting.novelty_maps),
        problem=sighting.problem,
    )


def _rounded_box(box: Box | None) -> Box | None:
    if box is None:
        return None
    x1, y1, x2, y2 = (round(min(max(value, 0.0), 1.0), 5) for value in box)
    return x1, y1, x2, y2


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)

"""Decides what is made: how many pictures of which kind, on which photos. Rare kinds come first."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from random import Random

from data_prep.annotations import Shape
from data_prep.synthesis.painted import Job, Photo


def lacking(examples: Mapping[str, int], kinds: Sequence[str]) -> int:
    """Return how many pictures bring the `kinds` to as many examples as the commonest kind of all has."""
    most = max(examples.values(), default=0)
    return sum(most - examples.get(kind, 0) for kind in kinds)


def share_out(examples: Mapping[str, int], kinds: Sequence[str], count: int) -> list[str]:
    """Return the kinds of `count` pictures: the next is always of the kind that has the fewest by then.

    Args:
        examples: How many there are of each kind; a kind that is absent has none.
        kinds: Those to make, in the order that decides between equals.
        count: How many in all; fewer are the first of more.
    """
    queue = [(examples.get(kind, 0), order, kind) for order, kind in enumerate(kinds)]
    heapq.heapify(queue)
    chosen = []
    for _ in range(count):
        have, order, kind = queue[0]
        chosen.append(kind)
        heapq.heapreplace(queue, (have + 1, order, kind))
    return chosen


def hosts(photos: Sequence[Photo]) -> dict[str, set[str]]:
    """Return the components that each kind of defect was seen on, by their names."""
    found: dict[str, set[str]] = {}
    for photo in photos:
        for defect in photo.defects:
            if component := photo.component_of(defect):
                found.setdefault(defect.name, set()).add(component.name)
    return found


class Planner:
    """Gives jobs, one at a time: the least used photo that a kind may be put on, and there the least used
    component. The same calls give the same jobs."""

    def __init__(
        self, photos: Sequence[Photo], has_components: bool, seed: int, kept: Collection[str] = ()
    ) -> None:
        """Look for the places where something can be made.

        Args:
            photos: Those that may be changed.
            has_components: Whether the recipe names components. If so, a photo without a sound one has no
                place; else a defect may be anywhere in a photo.
            seed: Other seeds choose other photos, and give the jobs other seeds.
            kept: Kinds of which a component must show one for a job of no kind; if empty, it may be any, also
                a sound one.
        """
        self._photos = photos
        self._seed = seed
        self._random = Random(f"synthesize {seed}")  # a string: hashed alike on every machine
        self._hosts = hosts(photos)
        self._places: list[list[Shape | None]] = [
            list(photo.components) if has_components else [None] for photo in photos
        ]
        self._sound = [photo.sound_components() for photo in photos]
        self._kept = frozenset(kept)
        self._uses: Counter[int] = Counter()
        self._place_uses: Counter[tuple[int, int]] = Counter()
        # A queue of photos for each kind: (uses when it was put there, those for the kind, order by chance,
        # photo).
        self._queues: dict[str | None, list[tuple[int, int, int, int]]] = {}
        self._next = 0

    def count_photos(self, kind: str | None) -> int:
        """Return how many photos have a place where the kind may be made."""
        return len(self._queue(kind))

    def job(self, kind: str | None) -> Job:
        """Return the next job, of a kind that has a place."""
        photo = self._least_used(kind)
        places = self._places_for(kind, photo)
        fewest = min(self._place_uses[photo, at] for at in places)
        at = self._random.choice([at for at in places if self._place_uses[photo, at] == fewest])
        self._uses[photo] += 1
        self._place_uses[photo, at] += 1
        number, self._next = self._next, self._next + 1
        digest = hashlib.sha256(f"{self._seed} {number}".encode()).digest()
        return Job(
            number=number,
            photo=self._photos[photo],
            kind=kind,
            target=self._places[photo][at],
            seed=int.from_bytes(digest[:4], "big"),
        )

    def _places_for(self, kind: str | None, photo: int) -> list[int]:
        """Return the indices of a photo's places for a kind."""
        return [
            at
            for at, place in enumerate(self._places[photo])
            if place is None or self._fits(kind, photo, place)
        ]

    def _fits(self, kind: str | None, photo: int, component: Shape) -> bool:
        """Return whether a component of a photo is a place for a kind: it is sound, and if the kind was seen
        on some components, one of those. For no kind it shows what is kept."""
        if kind is None:
            shown = {defect.name for defect in self._photos[photo].defects_on(component)}
            return not self._kept or not shown.isdisjoint(self._kept)
        seen_on = self._hosts.get(kind)
        return component in self._sound[photo] and (seen_on is None or component.name in seen_on)

    def _queue(self, kind: str | None) -> list[tuple[int, int, int, int]]:
        if kind not in self._queues:
            fitting = [photo for photo in range(len(self._photos)) if self._places_for(kind, photo)]
            self._random.shuffle(fitting)
            self._queues[kind] = [(0, 0, order, photo) for order, photo in enumerate(fitting)]
        return self._queues[kind]

    def _least_used(self, kind: str | None) -> int:
        """Return the photo for a kind that was used least: of several, least for the kind, then by chance."""
        queue = self._queue(kind)
        while (first := queue[0])[0] != (uses := self._uses[first[-1]]):  # it was used for another kind
            heapq.heapreplace(queue, (uses, *first[1:]))
        _, own, order, photo = first
        heapq.heapreplace(queue, (uses + 1, own + 1, order, photo))
        return photo

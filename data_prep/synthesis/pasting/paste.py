"""Makes defects by cutting them out of other photos and blending them in. Needs OpenCV and SciPy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random

import numpy as np
from numpy.typing import NDArray

from data_prep.annotations import Shape
from data_prep.synthesis.frames import Frame, box_frame, find_frame
from data_prep.synthesis.painted import Job, Outline, Painted, Photo, Rejected
from data_prep.synthesis.pasting.donors import MOST_OF, Cutting, Donor, cut_out, find_donors
from data_prep.synthesis.pasting.matching import (
    Affine,
    Fitted,
    best_shift,
    blend,
    lay,
    likeness,
    match_colours,
    match_sharpness,
)
from llava.common.boxes import area
from llava.common.grabcut import find_object
from llava.common.masks import Mask, Pixels, box_mask, import_opencv
from llava.common.synthetic import Method

NO_DONOR = "no other photo shows that kind of defect on that kind of component"
NO_PLACE = "no place for the defects that were cut out"
TRIES = 18  # places, of which that with the likest surroundings is taken
DONORS = 6  # of a picture, that are tried there: to find the units of each one's string takes seconds
_CUTTINGS, _FRAMES = 64, 4096  # that are kept in memory
_LEAST_SCALE, _MOST_SCALE = 0.3, 2.0  # below, a defect is a few pixels; above, it is blurred
_SAME_CAMERA = 2.0  # photos of surfaces whose sides differ by less were cropped, not taken from further away
_MOST_STRETCH = 1.3  # of a string's units, along against across
_MOST_SHOWN = 0.9  # of a mask, must lie in the photo
_MOST_COVERED = 0.15  # of a defect's box that was there
_LEAST_ALIKE = 0.15  # correlation of what surrounds a place of a string: with less, its units do not join
_UNEQUAL = 60.0  # distance of colours in Lab that weighs as much as details without any likeness
_TURNED = 60.0  # degrees that weigh as much


@dataclass(frozen=True)
class _Try:
    """A donor at a place, and how well it suits it."""

    donor: Donor
    fitted: Fitted
    whole: bool
    score: float
    scale: float
    turned: float
    mirrored: bool


@dataclass(frozen=True)
class _Turn:
    """How a donor is brought to a place: `linear` (2, 2) from its pixels to those of the photo."""

    linear: NDArray[np.float64]
    degrees: float
    mirrored: bool

    @property
    def scale(self) -> float:
        return math.sqrt(abs(float(np.linalg.det(self.linear))))


class PastePainter:
    """Pastes defects of the photos given onto sound components of the same kind."""

    method: Method = "paste"
    batch_size = 1

    def __init__(self, photos: Sequence[Photo], outline: Outline = find_object) -> None:
        """Look for defects that can be cut out of photos, which must all be training photos, by `outline`."""
        import_opencv()
        self._donors = find_donors(photos)
        self._frame = lru_cache(_FRAMES)(_frame_of)
        self._cut_out = lru_cache(_CUTTINGS)(lambda donor: cut_out(donor, self._frame_under(donor), outline))

    def can_make(self, kind: str) -> str | None:
        """Return why it cannot make a kind: no photo has one to cut out."""
        if kind in self._donors:
            return None
        return f"no photo with boxes shows {kind!r}, so there is none to cut out"

    def paint(self, jobs: Sequence[Job]) -> list[Painted | Rejected]:
        """Make the pictures of some jobs, in their order."""
        return [self._paint(job) for job in jobs]

    def _paint(self, job: Job) -> Painted | Rejected:
        assert job.kind is not None
        target = None if job.target is None else job.target.name
        donors = [
            donor
            for donor in self._donors.get(job.kind, [])
            if (None if donor.component is None else donor.component.name) == target
            and donor.photo.sha256 != job.photo.sha256
        ]
        if not donors:
            return Rejected(NO_DONOR)
        photo = job.photo.pixels()
        chance = Random(job.seed)
        chance.shuffle(donors)
        donors = donors[:DONORS]
        tries = [self._try(job, photo, donors[number % len(donors)], chance) for number in range(TRIES)]
        best = max((found for found in tries if found), key=lambda found: found.score, default=None)
        if best is None:
            return Rejected(NO_PLACE)
        fitted = match_sharpness(match_colours(best.fitted, photo, best.whole), photo)
        mask: Mask = np.zeros(photo.shape[:2], bool)
        mask[fitted.area] = fitted.mask
        return Painted(
            pixels=blend(photo, fitted),
            mask=mask,
            donors=(best.donor.photo,),
            details={
                "donor_box": list(best.donor.defect.box),
                "scale": round(best.scale, 3),
                "turned": round(best.turned, 1),
                "mirrored": best.mirrored,
                "likeness": round(best.score, 3),
            },
        )

    def _try(self, job: Job, photo: Pixels, donor: Donor, chance: Random) -> _Try | None:
        """Lay a donor at a place by chance; None where it does not fit there."""
        cutting = self._cut_out(donor)
        has_units = False
        if job.target is None:
            turn = _turn_on_surface(donor.photo.size, job.photo.size, chance)
            centre = _place_on_surface(donor, job.photo.size, turn, chance)
            reach = 0.0, 0.0, 0.0
        else:
            frame = self._frame(job.photo, job.target)
            own = self._frame_under(donor)
            assert own is not None and donor.component is not None
            if own.period is None or frame.period is None:
                own, frame = box_frame(donor.component.box), box_frame(job.target.box)
            has_units = frame.period is not None
            turn, centre, reach = _place_on_component(donor, own, frame, chance)
            if cutting.whole and math.sqrt(area(donor.defect.box)) * turn.scale >= MOST_OF * frame.length:
                return None  # it would be no place of this component, but most of it
        if not _LEAST_SCALE <= turn.scale <= _MOST_SCALE:
            return None
        fitted = self._lay(photo, donor, cutting, turn, centre, reach)
        if fitted is None:
            return None
        whole = np.count_nonzero(cutting.mask) * turn.scale**2
        if np.count_nonzero(fitted.mask) < _MOST_SHOWN * whole - 2 * math.sqrt(whole):
            return None
        size = photo.shape[0], photo.shape[1]
        if any(_covered(defect, fitted, size) > _MOST_COVERED for defect in job.photo.defects):
            return None
        alike, apart = likeness(photo, fitted)
        if has_units and cutting.whole and alike < _LEAST_ALIKE:
            return None
        score = alike - apart / _UNEQUAL - abs(turn.degrees) / _TURNED
        return _Try(donor, fitted, cutting.whole, score, turn.scale, turn.degrees, turn.mirrored)

    def _frame_under(self, donor: Donor) -> Frame | None:
        """Return the frame of the component that a donor lies on."""
        return None if donor.component is None else self._frame(donor.photo, donor.component)

    def _lay(
        self,
        photo: Pixels,
        donor: Donor,
        cutting: Cutting,
        turn: _Turn,
        centre: NDArray[np.float64],
        reach: tuple[float, float, float],
    ) -> Fitted | None:
        """Lay a cutting so that the defect's centre comes to `centre`, then shift it within `reach` (along,
        aside, and the direction) to where its surroundings fit best."""
        size = photo.shape[0], photo.shape[1]
        along, aside, angle = reach

        def laid(beyond: float) -> Fitted | None:
            origin = _centre(donor.defect) - cutting.corner
            affine: Affine = np.column_stack([turn.linear, centre - turn.linear @ origin])
            return lay(cutting.pixels, cutting.mask, affine, size, beyond)

        fitted = laid(max(along, aside))
        if fitted is None or not max(along, aside):
            return fitted
        centre = centre + best_shift(photo, fitted, along, aside, angle)
        return laid(0)


def _frame_of(photo: Photo, component: Shape) -> Frame:
    return find_frame(photo.pixels(), component.box)


def _covered(defect: Shape, fitted: Fitted, size: tuple[int, int]) -> float:
    """Return the share of a defect's box that a fitted piece would cover."""
    there = box_mask(defect.box, size)
    return int(np.count_nonzero(there[fitted.area] & fitted.mask)) / max(1, int(np.count_nonzero(there)))


def _centre(shape: Shape) -> NDArray[np.float64]:
    x1, y1, x2, y2 = shape.box
    return np.array([(x1 + x2) / 2, (y1 + y2) / 2])


def _rotation(angle: float) -> NDArray[np.float64]:
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def _smallest_turn(angle: float) -> float:
    """Return the angle that turns a line as `angle` does: of two directions it has no first one."""
    return (angle + math.pi / 2) % math.pi - math.pi / 2


def _turn_between(own: float, there: float, along: float, across: float) -> _Turn:
    """Return how what lies in the direction `own` comes to lie in that of `there`.

    The smallest turn is taken, of the donor or its mirror image, so that the light still comes from above.
    `along` and `across` are the scales in and across the direction.
    """
    plain, mirrored = _smallest_turn(there - own), _smallest_turn(there - (math.pi - own))
    mirror = abs(mirrored) < abs(plain)
    angle = mirrored if mirror else plain
    turn = _rotation(angle) @ np.diag([-1.0 if mirror else 1.0, 1.0])
    stretch = _rotation(there) @ np.diag([along, across]) @ _rotation(-there)
    return _Turn(stretch @ turn, math.degrees(angle), mirror)


def _place_on_component(
    donor: Donor, own: Frame, frame: Frame, chance: Random
) -> tuple[_Turn, NDArray[np.float64], tuple[float, float, float]]:
    """Choose where on a component a donor goes: how it is turned, its centre, and how far it may be shifted.

    What lies at an end of its component goes to that end, other defects anywhere; as far aside as they were.
    """
    centre = _centre(donor.defect)
    along, _ = own.locate((centre[0], centre[1]))
    place = own.place(along)
    ratio = frame.thickness / own.thickness
    stretch = 1.0
    if frame.period and own.period:
        stretch = float(np.clip(frame.period / own.period / ratio, 1 / _MOST_STRETCH, _MOST_STRETCH))
    half = (donor.defect.box[2] - donor.defect.box[0]) * abs(math.cos(place.angle))
    half = (half + (donor.defect.box[3] - donor.defect.box[1]) * abs(math.sin(place.angle))) / 2
    scale = ratio * stretch
    edge = min(half * scale, frame.length / 2)
    goal = chance.uniform(edge, frame.length - edge)
    from_end = min(along, own.length - along)
    if from_end < min(half, own.length / 4):
        # Whether the donor's start comes to the start of the other one, or to its end.
        there = frame.place(frame.length / 2).angle
        trial = _turn_between(place.angle, there, 1, 1).linear
        ahead = trial @ (math.cos(place.angle), math.sin(place.angle))
        same = float(ahead @ (math.cos(there), math.sin(there))) > 0
        at_start = (along <= own.length / 2) == same
        goal = from_end * scale if at_start else frame.length - from_end * scale
    there_place = frame.place(goal)
    turn = _turn_between(place.angle, there_place.angle, scale, ratio)
    aside = centre - (place.x, place.y)
    point = np.array([there_place.x, there_place.y]) + turn.linear @ aside
    reach = (frame.period / 2 if frame.period else 0.2 * frame.thickness), 0.12 * frame.thickness
    return turn, point, (*reach, there_place.angle)


def _turn_on_surface(own: tuple[int, int], there: tuple[int, int], chance: Random) -> _Turn:
    """Choose how a defect of a surface is turned: little, since surfaces have a direction, and mirrored."""
    ratio = min(there) / min(own)
    scale = (1.0 if 1 / _SAME_CAMERA < ratio < _SAME_CAMERA else ratio) * chance.uniform(0.85, 1.15)
    degrees = chance.uniform(-4, 4)
    mirror = [chance.choice((-1.0, 1.0)) for _ in range(2)]
    linear = _rotation(math.radians(degrees)) @ np.diag(mirror) * scale
    return _Turn(linear, degrees, mirror[0] * mirror[1] < 0)


def _place_on_surface(
    donor: Donor, there: tuple[int, int], turn: _Turn, chance: Random
) -> NDArray[np.float64]:
    """Choose the centre of a defect on a surface: anywhere, but what ran to a photo's edge still does."""
    box, size = donor.defect.box, donor.photo.size
    centre = []
    for axis in (0, 1):
        half = (box[axis + 2] - box[axis]) / 2 * turn.scale
        low, high = half, there[axis] - half
        first, last = box[axis] <= 2, box[axis + 2] >= size[axis] - 2
        if turn.linear[axis, axis] < 0:
            first, last = last, first
        if low > high or (first and last):
            centre.append(there[axis] / 2)
        elif first or last:
            centre.append(low if first else high)
        else:
            centre.append(chance.uniform(low, high))
    return np.array(centre)

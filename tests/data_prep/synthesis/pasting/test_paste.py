import hashlib
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("cv2")
pytest.importorskip("scipy")

from data_prep.annotations import Shape
from data_prep.synthesis.frames import Frame, box_frame
from data_prep.synthesis.painted import Job, Painted, Photo, Rejected
from data_prep.synthesis.pasting.paste import NO_DONOR, NO_PLACE, PastePainter, _turn_between
from llava.common.boxes import Box
from llava.common.masks import Mask, Pixels, box_mask, box_of, changed_pixels
from tests.support.drawn_strings import DrawnString

Make = Callable[..., Photo]
SPOT = Shape("spot", (40.0, 30.0, 60.0, 50.0))


@pytest.fixture
def photo(tmp_path: Path) -> Make:
    def make(
        pixels: np.ndarray, components: tuple[Shape, ...] = (), defects: tuple[Shape, ...] = ()
    ) -> Photo:
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.png"
        Image.fromarray(pixels).save(file)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        return Photo(file, file.name, digest, (pixels.shape[1], pixels.shape[0]), components, defects)

    return make


def plate(seed: int, spot: Box | None = None, size: tuple[int, int] = (120, 160)) -> np.ndarray:
    """Return a grey surface, perhaps with a dark spot in a box."""
    pixels = np.random.default_rng(seed).normal(130 + 10 * (seed % 3), 5, (*size, 1)).repeat(3, axis=2)
    if spot:
        x1, y1, x2, y2 = spot
        y, x = np.mgrid[: size[0], : size[1]]
        inside = ((x - (x1 + x2) / 2) / (x2 - x1)) ** 2 + ((y - (y1 + y2) / 2) / (y2 - y1)) ** 2 < 0.2
        pixels[inside] -= 80
    return pixels.clip(0, 255).astype(np.uint8)


def paint(
    painter: PastePainter, photo: Photo, target: Shape | None = None, seed: int = 0
) -> Painted | Rejected:
    return painter.paint([Job(0, photo, "spot", target, seed)])[0]


def test_a_spot_of_a_surface_is_put_on_another(photo: Make) -> None:
    donor, sound = photo(plate(0, SPOT.box), defects=(SPOT,)), photo(plate(1))
    painter = PastePainter([donor, sound])
    made = paint(painter, sound)
    assert isinstance(made, Painted) and made.donors == (donor,)
    original = sound.pixels()
    changed = changed_pixels(original, made.pixels, 30)
    assert 100 < changed.sum() < 500  # the spot has some 250 pixels
    assert made.pixels[changed].mean() < original.mean() - 30  # as dark as it was, about
    assert (made.pixels == original)[~made.mask].all()


def test_what_is_cut_out_is_outlined_as_asked(photo: Make) -> None:
    donor, sound = photo(plate(0, SPOT.box), defects=(SPOT,)), photo(plate(1))
    boxes = []

    def left_half(pixels: Pixels, box: Box) -> Mask:
        boxes.append(box)
        return box_mask((*box[:2], (box[0] + box[2]) / 2, box[3]), (pixels.shape[0], pixels.shape[1]))

    whole, half = paint(PastePainter([donor]), sound), paint(PastePainter([donor], left_half), sound)
    assert isinstance(whole, Painted) and isinstance(half, Painted)
    assert boxes == [SPOT.box]
    assert half.mask.sum() == pytest.approx(16 * 26 * half.details["scale"] ** 2, rel=0.1)  # 3 pixels wider
    assert (half.pixels == sound.pixels())[~half.mask].all()


def test_the_same_job_gives_the_same_picture_whatever_came_before(photo: Make) -> None:
    donors = [photo(plate(seed, SPOT.box), defects=(SPOT,)) for seed in range(4)]
    sound = photo(plate(9))
    jobs = [Job(number, sound, "spot", None, 7 + number) for number in range(4)]
    together = PastePainter(donors).paint(jobs)
    alone = [PastePainter(donors).paint([job])[0] for job in reversed(jobs)][::-1]
    for first, second in zip(together, alone, strict=True):
        assert isinstance(first, Painted) and isinstance(second, Painted)
        assert (first.pixels == second.pixels).all() and first.details == second.details
    assert isinstance(together[0], Painted) and isinstance(together[1], Painted)
    assert (together[0].pixels != together[1].pixels).any()  # another seed


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    x=st.integers(0, 140), y=st.integers(0, 100), across=st.integers(4, 60), down=st.integers(4, 60),
    seed=st.integers(0, 10**6),
)  # fmt: skip
def test_pixels_outside_the_mask_are_the_photos_bit_for_bit(
    photo: Make, x: int, y: int, across: int, down: int, seed: int
) -> None:
    box = float(x), float(y), float(min(x + across, 160)), float(min(y + down, 120))
    donor = photo(plate(seed, box), defects=(Shape("spot", box),))
    there = Shape("scratch", (10.0, 60.0, 150.0, 75.0))
    host = photo(plate(seed + 1), defects=(there,))
    made = paint(PastePainter([donor]), host, seed=seed)
    if isinstance(made, Rejected):
        assert made.reason == NO_PLACE
        return
    assert (made.pixels == host.pixels())[~made.mask].all()
    assert made.mask[60:75, 10:150].mean() <= 0.16  # what was there is still to be seen


def test_what_ran_to_the_edge_still_does(photo: Make) -> None:
    box = 70.0, 0.0, 80.0, 120.0
    pixels = plate(0)
    pixels[:, 73:77] = 230
    donor, sound = photo(pixels, defects=(Shape("spot", box),)), photo(plate(3))
    for seed in range(4):
        made = paint(PastePainter([donor]), sound, seed=seed)
        assert isinstance(made, Painted)
        changed = box_of(changed_pixels(sound.pixels(), made.pixels, 25))
        assert changed is not None and changed[3] - changed[1] > 85


def test_only_components_of_the_same_kind_are_hosts(photo: Make) -> None:
    bar, clamp = Shape("bar", (10.0, 20.0, 150.0, 60.0)), Shape("clamp", (10.0, 20.0, 150.0, 60.0))
    donor = photo(plate(0, SPOT.box), (bar,), (SPOT,))
    painter = PastePainter([donor])
    assert painter.can_make("spot") is None
    assert "'hole'" in (painter.can_make("hole") or "")
    assert isinstance(paint(painter, photo(plate(1), (bar,)), bar), Painted)
    for host, target in ((photo(plate(1), (clamp,)), clamp), (photo(plate(1)), None)):
        assert paint(painter, host, target) == Rejected(NO_DONOR)
    assert paint(painter, replace(donor, defects=()), bar) == Rejected(NO_DONOR)  # its own photo


def test_a_place_of_a_long_component_does_not_replace_a_short_one(photo: Make) -> None:
    """Their widths alone say how much larger the short one is."""
    spot = Shape("spot", (40.0, 40.0, 80.0, 80.0))
    rod, stub = Shape("rod", (50.0, 5.0, 70.0, 115.0)), Shape("rod", (60.0, 30.0, 94.0, 100.0))
    donor = photo(plate(0, spot.box), (rod,), (spot,))
    other = replace(rod, box=(80.0, 5.0, 100.0, 115.0))
    assert isinstance(paint(PastePainter([donor]), photo(plate(1), (other,)), other), Painted)
    assert paint(PastePainter([donor]), photo(plate(1), (stub,)), stub) == Rejected(NO_PLACE)


def test_a_gap_of_a_string_comes_between_the_units_of_another(photo: Make) -> None:
    broken = DrawnString(odd=8, angle=-12, period=26, seed=1)
    sound = DrawnString(angle=15, period=20, seed=2)
    (x, y), _ = broken.place(8.5)
    gap = Shape("gap", (x - 17, y - 36, x + 17, y + 36))
    donor = photo(np.asarray(broken.draw()), (Shape("insulator", broken.box),), (gap,))
    component = Shape("insulator", sound.box)
    host = photo(np.asarray(sound.draw()), (component,))
    made = PastePainter([donor]).paint([Job(0, host, "gap", component, 3)])[0]
    assert isinstance(made, Painted)
    assert made.details["mirrored"] and abs(made.details["turned"]) < 6
    assert made.details["scale"] == pytest.approx(20 / 26, abs=0.08)
    box = box_of(made.mask)
    assert box is not None
    # The gap lies on the string, at the middle of a unit.
    centre = np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
    middles = [sound.place(unit + 0.5)[0] for unit in range(sound.discs)]
    assert min(math.dist(centre, middle) for middle in middles) < 5


@given(own=st.floats(-math.pi, math.pi), there=st.floats(-math.pi, math.pi))
def test_a_turn_brings_a_direction_to_the_other_by_at_most_a_right_angle(own: float, there: float) -> None:
    turn = _turn_between(own, there, 2.0, 0.5)
    x, y = turn.linear @ (math.cos(own), math.sin(own))
    assert abs(x * math.sin(there) - y * math.cos(there)) < 1e-6  # parallel
    assert math.hypot(x, y) == pytest.approx(2.0)
    assert turn.scale == pytest.approx(1.0)
    assert abs(turn.degrees) <= 90 + 1e-6


@given(along=st.floats(-20, 130), aside=st.floats(-15, 15))
def test_a_frame_locates_what_it_places(along: float, aside: float) -> None:
    frame = Frame(np.array([[0.0, 0.0], [50.0, 0.0], [100.0, 0.0]]), 30.0)
    place = frame.place(along)
    point = place.x - aside * math.sin(place.angle), place.y + aside * math.cos(place.angle)
    assert frame.locate(point) == pytest.approx((along, aside), abs=1e-6)


def test_of_a_box_alone_the_frame_runs_along_its_longer_side() -> None:
    assert box_frame((0.0, 0.0, 100.0, 20.0)).place(30).angle == pytest.approx(0)
    upright = box_frame((0.0, 0.0, 20.0, 100.0))
    assert (upright.length, upright.thickness) == (100, 20)

"""Everything in a picture is found as a naive loop over the grid finds it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from llava.common.boxes import Box, iou
from llava.common.errors import InputError
from llava.common.masks import box_of
from llava.painting import grid
from llava.painting.grid import boxes_of, find_all, grid_clicks, stability, suppress
from llava.painting.sam import Candidates, Sam, SamView
from llava.painting.segment import find_segmenter
from llava.painting.views import Click, Segment

SIZE = (45, 70)


def _picture(seed: int = 1) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), np.uint8)
    return np.asarray(Image.fromarray(noise).resize(SIZE[::-1]))


def _naive(
    view: SamView, points: int, least_iou: float, least_stability: float, most_overlap: float
) -> list[Segment]:
    """One point and one mask at a time, cell by cell."""
    candidates = []
    for row in range(points):
        for column in range(points):
            click = Click((column + 0.5) * SIZE[1] / points, (row + 0.5) * SIZE[0] / points)
            found = view.ask_clicks([[click]])
            for logits, expected in zip(found.logits[0], found.ious[0], strict=True):
                cells = view.filled(logits)
                inner = sum(value > 1 for line in cells for value in line)
                outer = sum(value > -1 for line in cells for value in line)
                if expected >= least_iou and outer and inner / outer >= least_stability:
                    candidates.append((expected, box_of(cells > 0) or (0.0, 0.0, 0.0, 0.0), logits))
    staying: list[tuple[float, Box, np.ndarray]] = []
    for candidate in sorted(candidates, key=lambda one: -one[0]):
        if all(iou(candidate[1], other[1]) <= most_overlap for other in staying):
            staying.append(candidate)
    segments = [Segment(view.enlarge(logits), float(expected)) for expected, _, logits in staying]
    return [segment for segment in segments if segment.mask.any()]


class Blobs(SamView):
    """A view whose candidates are three ellipses about a click, with edges and expectations of their own."""

    def __init__(self, seed: int) -> None:
        super().__init__(None, None, SIZE, (41, 64), 64)
        self.seed = seed

    def ask_clicks(self, prompts: Sequence[Sequence[Click]]) -> Candidates:
        rows, columns = np.mgrid[:16, :16] + 0.5
        logits, ious = [], []
        for ((x, y, _),) in prompts:
            draw = np.random.default_rng([self.seed, round(100 * x), round(100 * y)])
            for _ in range(3):
                wide, high, sharp = draw.uniform(0.5, 6), draw.uniform(0.5, 6), draw.uniform(2, 40)
                across, down = (columns - x / SIZE[1] * 16) / wide, (rows - y / SIZE[0] * 41 / 4) / high
                logits.append(sharp * (1 - across**2 - down**2))
                ious.append(draw.uniform(0.5, 1))
        shape = len(prompts), 3
        return Candidates(np.float32(logits).reshape(*shape, 16, 16), np.float32(ious).reshape(shape))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("least_iou, least_stability", [(0.0, 0.0), (0.7, 0.6), (0.88, 0.0), (0.5, 0.9)])
@pytest.mark.parametrize("most_overlap", [0.0, 0.3, 0.7, 1.0])
def test_the_grid_finds_what_a_naive_loop_finds(
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    least_iou: float,
    least_stability: float,
    most_overlap: float,
) -> None:
    monkeypatch.setattr(grid, "AT_ONCE", 7)  # several passes, the last one smaller
    view = Blobs(seed)
    settings = {"least_iou": least_iou, "least_stability": least_stability, "most_overlap": most_overlap}
    ours, naive = find_all(view, points=5, **settings), _naive(view, 5, **settings)
    assert [segment.iou for segment in ours] == [segment.iou for segment in naive]
    assert all((one.mask == other.mask).all() for one, other in zip(ours, naive, strict=True))
    assert len(ours) >= 2


def test_the_grid_of_a_model_finds_what_a_naive_loop_finds(model_of_sam: Sam) -> None:
    view = model_of_sam.look(_picture())
    everything = {"least_iou": -99.0, "least_stability": 0.0, "most_overlap": 1.0}
    ours, naive = find_all(view, points=3, **everything), _naive(view, 3, **everything)
    assert len(ours) == len(naive) > 20
    for one in ours:  # rounding may exchange neighbours
        alike = [other for other in naive if other.iou == pytest.approx(one.iou, abs=1e-3)]
        assert min((one.mask != other.mask).mean() for other in alike) < 0.01


def test_nothing_passes_and_nothing_is_found(sam: Sam) -> None:
    assert find_all(sam.look(_picture()), points=3, least_iou=99) == []


def test_the_grid_needs_sam_and_points(sam: Sam) -> None:
    with pytest.raises(InputError, match="found by SAM alone"):
        find_all(find_segmenter(None).look(_picture()))
    with pytest.raises(InputError, match="1 point or more"):
        find_all(sam.look(_picture()), points=0)


def test_the_grid_lies_in_the_middles_of_its_parts() -> None:
    assert [(click.x, click.y) for click in grid_clicks((20, 40), 2)] == [
        (10, 5),
        (30, 5),
        (10, 15),
        (30, 15),
    ]


corners = st.tuples(*[st.integers(0, 12)] * 4).map(
    lambda four: tuple(map(float, (*np.minimum(four[:2], four[2:]), *np.maximum(four[:2], four[2:]))))
)


@given(st.lists(st.tuples(corners, st.integers(0, 5)), max_size=20), st.sampled_from([0.0, 0.3, 0.55, 0.95]))
def test_boxes_are_suppressed_as_by_a_loop(scored: list[tuple[Box, int]], most: float) -> None:
    expected: list[int] = []
    for number in sorted(range(len(scored)), key=lambda number: -scored[number][1]):
        if all(iou(scored[number][0], scored[other][0]) <= most for other in expected):
            expected.append(number)
    boxes = np.array([box for box, _ in scored]).reshape(-1, 4)
    assert suppress(boxes, np.array([float(score) for _, score in scored]), most) == expected


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 6), st.integers(1, 6))
def test_boxes_and_stability_are_those_of_each_mask(seed: int, count: int, rows: int, columns: int) -> None:
    logits = np.random.default_rng(seed).normal(-1.5, 1.5, (count, rows, columns)).astype(np.float32)
    for values, box, stable in zip(logits, boxes_of(logits > 0), stability(logits), strict=True):
        assert tuple(box) == (box_of(values > 0) or (0, 0, 0, 0))
        outer = int((values > -1).sum())
        assert stable == ((values > 1).sum() / outer if outer else 0)

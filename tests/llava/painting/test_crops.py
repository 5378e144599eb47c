"""What a diffusion model sees: a part with the whole mask, and cells that a mask never falls between."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from llava.common.masks import box_of
from llava.painting.crops import MULTIPLE, crop_around, shrinking


@given(
    height=st.integers(1, 3000),
    width=st.integers(1, 3000),
    side=st.sampled_from([64, 512, 1024]),
    data=st.data(),
)
def test_the_part_holds_the_mask_and_lies_in_the_photo(
    height: int, width: int, side: int, data: st.DataObject
) -> None:
    mask = np.zeros((height, width), bool)
    y, x = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    mask[y : y + data.draw(st.integers(1, height)), x : x + data.draw(st.integers(1, width))] = True
    crop = crop_around(mask, side)
    x1, y1, x2, y2 = crop.edges
    box = box_of(mask)
    assert box is not None
    assert 0 <= x1 <= box[0] and box[2] <= x2 <= width and 0 <= y1 <= box[1] and box[3] <= y2 <= height
    assert all(length % MULTIPLE == 0 and length > 0 for length in crop.seen)
    assert max(crop.seen) <= 2 * side
    if side >= 512 and max(x2 - x1, y2 - y1) < 3 * min(x2 - x1, y2 - y1):
        assert 0.75 < crop.seen[0] * crop.seen[1] / side**2 < 1.33
    cells = crop.cells(mask, 8)
    assert cells.shape == (crop.seen[1] // 8, crop.seen[0] // 8) and cells.any()


def test_cells_are_all_that_the_mask_touches() -> None:
    mask = np.zeros((64, 64), bool)
    mask[7:9, 63] = True
    cells = crop_around(mask, 64).cells(mask, 8)
    crop = crop_around(np.ones((64, 64), bool), 64)
    assert crop.edges == (0, 0, 64, 64) and cells.any()
    assert torch.nonzero(crop.cells(mask, 8)).tolist() == [[0, 7], [1, 7]]


def test_a_part_of_the_models_size_is_pasted_as_it_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    crop = crop_around(np.ones((64, 64), bool), 64)
    assert np.array_equal(crop.fit(crop.cut(pixels)), pixels)


def test_thin_masks_begin_wider_and_thick_ones_do_not() -> None:
    line, disc = torch.zeros(32, 32, dtype=torch.bool), torch.zeros(32, 32, dtype=torch.bool)
    line[16, 4:28] = True
    disc[10:20, 10:20] = True
    widened = shrinking(line, 10, least=3)
    assert len(widened) == 10 and torch.equal(widened[-1], line)
    assert widened[0][14:19, 4:28].all() and not widened[0][:13].any()
    for wider, following in itertools.pairwise(widened):
        assert (wider | following).equal(wider)
    assert all(torch.equal(cells, disc) for cells in shrinking(disc, 10, least=3))
    whole = torch.ones(8, 8, dtype=torch.bool)
    assert all(cells.all() for cells in shrinking(whole, 3, least=3))
    assert torch.equal(shrinking(line, 1, least=3)[0], line)

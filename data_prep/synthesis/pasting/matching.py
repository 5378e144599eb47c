"""Fits a piece of one photo into another: its place, colour and sharpness, and the seam. Needs OpenCV."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llava.common.masks import Mask, Pixels, blend_over, feather, grown, half_width, import_opencv

Floats = NDArray[np.float32]
Affine = NDArray[np.float64]
"""(2, 3): x and y of the photo from x, y and 1 of the piece."""

_RING = 0.35  # of a mask's extent: the surroundings that are compared
_SEARCH_SIDE = 96  # pixels of the longer side of what is compared
_GAINS = 0.6, 1.6  # by what contrast may be changed
_COLOURS = 4  # of a ring, that are matched one by one
_SOFTNESS = 8.0  # in Lab
_BLURS = np.array([0, 0.4, 0.6, 0.8, 1.0, 1.3, 1.6, 2.0, 2.6, 3.4])  # pixels
_FEATHER = 0.12  # of a mask's extent
_PLAIN = 0.5


@dataclass(frozen=True)
class Fitted:
    """A piece brought to where it shall lie in a photo.

    `pixels` and `mask` are of the photo's part `area` (rows, columns). `ring` is the mask's surroundings that
    both pictures have.
    """

    pixels: Pixels
    mask: Mask
    ring: Mask
    area: tuple[slice, slice]


def extent(mask: Mask) -> float:
    """Return the side of a square of a mask's area."""
    return math.sqrt(max(1, int(np.count_nonzero(mask))))


def lay(piece: Pixels, mask: Mask, affine: Affine, size: tuple[int, int], beyond: float = 0) -> Fitted | None:
    """Bring a piece to its place in a photo of (height, width).

    Args:
        piece: (height, width, 3), the defect with surroundings.
        mask: (height, width), what is pasted of it.
        affine: Where it goes.
        size: The photo's.
        beyond: Pixels of the photo that the area holds around what is compared.

    Returns:
        None where nothing of the mask would lie in the photo.
    """
    cv2 = import_opencv()
    rows, columns = np.nonzero(mask)
    corners = np.array(
        [(x, y, 1) for x in (columns.min(), columns.max() + 1) for y in (rows.min(), rows.max() + 1)]
    )
    x, y = affine @ corners.T
    scale = math.sqrt(abs(np.linalg.det(affine[:, :2])))
    ring_width = max(3, round(_RING * extent(mask) * scale))
    more = ring_width + 2 + beyond
    area = (
        slice(max(0, math.floor(y.min() - more)), min(size[0], math.ceil(y.max() + more))),
        slice(max(0, math.floor(x.min() - more)), min(size[1], math.ceil(x.max() + more))),
    )
    across, down = area[1].stop - area[1].start, area[0].stop - area[0].start
    if across <= 0 or down <= 0:
        return None
    # OpenCV's pixels lie at whole numbers, ours half a pixel further.
    here = affine.copy()
    here[:, 2] += affine[:, :2] @ (0.5, 0.5) - 0.5 - (area[1].start, area[0].start)
    if scale < 0.7:  # a picture that is made smaller without blur gets false patterns
        piece = cv2.GaussianBlur(piece, (0, 0), 0.45 / scale)

    def warp(picture: Any, method: int, border: int) -> Any:
        return cv2.warpAffine(picture, here, (across, down), flags=method, borderMode=border)

    laid = warp(piece, cv2.INTER_CUBIC, cv2.BORDER_REPLICATE)
    full = np.full(mask.shape, 255, np.uint8)
    known = warp(full, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT) > 0
    laid_mask = warp(mask.astype(np.uint8) * 255, cv2.INTER_LINEAR, cv2.BORDER_CONSTANT) >= 128
    if not laid_mask.any():
        return None
    ring = grown(laid_mask, ring_width) & ~laid_mask & known
    return Fitted(laid, laid_mask, ring, area)


def likeness(photo: Pixels, fitted: Fitted) -> tuple[float, float]:
    """Return how alike the surroundings are: the correlation of their details (-1 to 1), and how far apart
    their mean colours are (in Lab, 0 to about 100)."""
    ring = fitted.ring
    if np.count_nonzero(ring) < 8:
        return 0.0, 0.0
    there, here = _lab(photo[fitted.area])[ring], _lab(fitted.pixels)[ring]
    apart = float(np.linalg.norm(there.mean(0) - here.mean(0)))
    there, here = there - there.mean(0), here - here.mean(0)
    power = math.sqrt(float((there**2).sum() * (here**2).sum()))
    return (float((there * here).sum()) / power if power > 1e-6 else 0.0), apart


def best_shift(
    photo: Pixels, fitted: Fitted, along: float, aside: float, angle: float
) -> tuple[float, float]:
    """Return by how much a fitted piece should be shifted for its surroundings to fit the photo's best.

    Args:
        photo: (height, width, 3).
        fitted: Laid with at least the larger of the reaches around it.
        along: Pixels that it may be shifted in the direction `angle` and against it.
        aside: The same across.
        angle: In radians.

    Returns:
        x and y in pixels of the photo.
    """
    cv2 = import_opencv()
    ring = fitted.ring
    rows, columns = np.nonzero(ring | fitted.mask)
    reach = math.ceil(max(along, aside))
    inner = slice(int(rows.min()), int(rows.max()) + 1), slice(int(columns.min()), int(columns.max()) + 1)
    window = photo[fitted.area]
    top, left = max(0, inner[0].start - reach), max(0, inner[1].start - reach)
    window = window[top : inner[0].stop + reach, left : inner[1].stop + reach]
    piece, weights = fitted.pixels[inner], ring[inner].astype(np.float32)
    scale = min(1.0, _SEARCH_SIDE / max(weights.shape))
    if scale < 1:
        piece, weights, window = (
            cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            for picture in (piece, weights, window)
        )
    if weights.sum() < 8:
        return 0.0, 0.0
    found = cv2.matchTemplate(
        _lab(window), _lab(piece), cv2.TM_CCOEFF_NORMED, mask=np.repeat(weights[..., None], 3, axis=2)
    )
    y, x = np.mgrid[: found.shape[0], : found.shape[1]]
    dx, dy = x / scale - (inner[1].start - left), y / scale - (inner[0].start - top)
    ahead = np.abs(dx * math.cos(angle) + dy * math.sin(angle))
    across = np.abs(dy * math.cos(angle) - dx * math.sin(angle))
    allowed = (ahead <= along + 0.5) & (across <= aside + 0.5) & np.isfinite(found) & (np.abs(found) <= 1.01)
    if not allowed.any():
        return 0.0, 0.0
    at = np.unravel_index(int(np.argmax(np.where(allowed, found, -np.inf))), found.shape)
    return float(dx[at]), float(dy[at])


def match_colours(fitted: Fitted, photo: Pixels, whole: bool) -> Fitted:
    """Give a piece the colours of its new surroundings, by what its ring shows and the photo there.

    Mean and spread in Lab are brought to those of the photo. Of a whole place of a component, where the two
    rings show the same things at the same places, each of the ring's few colours is brought to its own
    counterpart too: the units of a string to the other string's, and the sky to its land.
    """
    cv2 = import_opencv()
    if np.count_nonzero(fitted.ring) < 8:
        return fitted
    lab = _lab(fitted.pixels)
    there, here = _lab(photo[fitted.area])[fitted.ring], lab[fitted.ring]
    gain = np.clip((there.std(0) + 1) / (here.std(0) + 1), *_GAINS)
    matched = (lab - here.mean(0)) * gain + there.mean(0)
    alike, _ = likeness(photo, fitted)
    trust = min(max((alike - 0.2) / 0.4, 0.0), 1.0)
    if whole and trust > 0:
        here = matched[fitted.ring]
        matched += trust * _counterparts(matched, here, there)
    rgb = cv2.cvtColor(matched.astype(np.float32), cv2.COLOR_Lab2RGB)
    pixels = np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8)
    return Fitted(pixels, fitted.mask, fitted.ring, fitted.area)


def _counterparts(lab: Floats, here: Floats, there: Floats) -> Floats:
    """Return what is added to each pixel (height, width, 3) so that the few colours of `here` become those of
    `there` at the same places, both (n, 3)."""
    cv2 = import_opencv()
    cv2.setRNGSeed(0)
    criteria = cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 20, 0.5
    count = min(_COLOURS, len(here))
    _, labels, centres = cv2.kmeans(here.astype(np.float32), count, None, criteria, 1, cv2.KMEANS_PP_CENTERS)
    labels = labels.ravel()
    steps = np.stack([np.median((there - here)[labels == k], axis=0) for k in range(count)])
    distance = ((lab[:, :, None] - centres) ** 2).sum(-1)
    # Softly: a colour between two changes by a mixture of both.
    weights = np.exp(-(distance - distance.min(-1, keepdims=True)) / (2 * _SOFTNESS**2))
    added: Floats = (weights / weights.sum(-1, keepdims=True)) @ steps
    return added


def match_sharpness(fitted: Fitted, photo: Pixels) -> Fitted:
    """Blur a piece until the details of its ring have no more energy than the photo's there; one that is
    blurred already stays so."""
    cv2 = import_opencv()
    if np.count_nonzero(fitted.ring) < 8:
        return fitted
    most = _detail(photo[fitted.area], fitted.ring)
    pixels = fitted.pixels
    most_blur = max(0.6, half_width(fitted.mask) / 4)  # more would wipe a thin one out
    for blur in _BLURS[most_blur >= _BLURS]:
        pixels = cv2.GaussianBlur(fitted.pixels, (0, 0), float(blur)) if blur else fitted.pixels
        if _detail(pixels, fitted.ring) <= 1.1 * most:
            break
    return Fitted(pixels, fitted.mask, fitted.ring, fitted.area)


def blend(photo: Pixels, fitted: Fitted) -> Pixels:
    """Return the photo (height, width, 3) with a piece blended in: outside its mask the photo, bit for bit.

    Half of it is the piece itself and half is cloned (Perez et al., 2003): same gradients, no seam.
    """
    cv2 = import_opencv()
    original = photo[fitted.area]
    # seamlessClone needs pixels around the mask, of which it takes the values at the seam.
    border = 3
    mask = np.pad(fitted.mask, border)
    around, piece = (
        np.pad(picture, ((border, border), (border, border), (0, 0)), mode="edge")
        for picture in (original, fitted.pixels)
    )
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    middle = (
        int(columns[0] + (columns[-1] - columns[0] + 1) // 2),
        int(rows[0] + (rows[-1] - rows[0] + 1) // 2),
    )
    cloned = cv2.seamlessClone(piece, around, mask.astype(np.uint8) * 255, middle, cv2.NORMAL_CLONE)
    cloned = cloned[border:-border, border:-border]
    # What is dark up to the cut's edge is bright after cloning, which brings the edge to the photo's colours:
    # half of the piece as it is keeps it visible.
    mixed = np.rint((1 - _PLAIN) * cloned + _PLAIN * fitted.pixels).astype(np.uint8)
    share = feather(fitted.mask, min(_FEATHER * extent(fitted.mask), half_width(fitted.mask) / 3))
    result = photo.copy()
    result[fitted.area] = blend_over(original, mixed, share)
    return result


def _lab(pixels: Pixels) -> Floats:
    cv2 = import_opencv()
    lab: Floats = cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    return lab


def _detail(pixels: Pixels, where: Mask) -> float:
    cv2 = import_opencv()
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    grey = cv2.GaussianBlur(grey, (0, 0), 0.8)  # noise is no detail
    return float((cv2.Laplacian(grey, cv2.CV_32F)[where] ** 2).mean())

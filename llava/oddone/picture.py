"""Show what was found: outlined units, the strip with its cuts, scores, the odd one beside its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from llava.oddone.result import Array, OddResult, Polygon

RED, BLUE, GREY, YELLOW = (214, 40, 40), (61, 111, 153), (150, 156, 162), (255, 200, 40)
STRIP_SIDE = 1600  # pixels of the longest strip that is shown
SHOWN_SIDE = 1600  # pixels of a photo's longer side, where it is shown
BAR_HEIGHT = 160
MARGIN = 36  # above a strip and its bars, for the units' numbers and scores
BESIDE = 2  # units that a shown strip goes on beyond the string at each end
CUT_OUT_SIDE = 640  # pixels of the part of a photo whose background is cut out


def draw_units(image: Image.Image, result: OddResult) -> Image.Image:
    """Draw the outlines of all units over the photo: grey where left out, red where odd."""
    scale = min(1.0, SHOWN_SIDE / max(image.size))
    shown = image.convert("RGB").resize((round(image.width * scale), round(image.height * scale)))
    draw = ImageDraw.Draw(shown)
    width = max(1, round(max(shown.size) / 800))

    def outline(polygon: Polygon, colour: tuple[int, int, int], thick: int) -> None:
        corners = [(x * scale, y * scale) for x, y in polygon]
        draw.line([*corners, corners[0]], fill=colour, width=thick, joint="curve")

    for unit in result.units:
        outline(unit.polygon, GREY if unit.left_out else YELLOW, width)
    if result.odd:
        outline(result.odd.polygon, RED, 2 * width)
        outline(result.odd.part, RED, width)
        place, text = _above(result.odd.polygon, scale), str(result.odd.index + 1)
        font = ImageFont.load_default(16)
        draw.text(place, text, fill=RED, anchor="mm", font=font, stroke_width=2, stroke_fill="white")
    return shown


def _above(polygon: Polygon, scale: float) -> tuple[float, float]:
    x, y = min(polygon, key=lambda corner: corner[1])
    return x * scale, max(10.0, y * scale - 12)


def draw_strip(result: OddResult) -> Image.Image:
    """Draw the straightened string, cut into its units, which are numbered from 1."""
    strip, cuts = _shown_strip(result)
    picture = Image.new("RGB", (strip.width, strip.height + MARGIN), "white")
    picture.paste(strip, (0, MARGIN))
    draw = ImageDraw.Draw(picture)
    font = _font(cuts, 0.6)
    for cut in cuts:
        draw.line([cut, MARGIN, cut, picture.height], fill=YELLOW, width=2)
    for index, (left, right) in enumerate(pairwise(cuts)):
        place = (left + right) / 2, MARGIN / 2
        draw.text(place, str(index + 1), fill=_colour(result, index), anchor="mm", font=font)
        if result.odd and index == result.odd.index:
            draw.rectangle([left, MARGIN, right, picture.height - 1], outline=RED, width=4)
    return picture


def draw_bars(result: OddResult) -> Image.Image:
    """Draw the units' scores as bars, which stand where the units stand in `draw_strip`."""
    strip, cuts = _shown_strip(result)
    picture = Image.new("RGB", (strip.width, BAR_HEIGHT + MARGIN), "white")
    draw = ImageDraw.Draw(picture)
    font = _font(cuts, 0.45)
    top = max([unit.score for unit in result.units if not unit.left_out], default=1.0)
    for index, (left, right) in enumerate(pairwise(cuts)):
        score = result.units[index].score
        height = BAR_HEIGHT * min(1.0, max(0.0, score) / max(top, 1e-6))
        box = [left + 2, picture.height - height, right - 2, picture.height]
        draw.rectangle(box, fill=_colour(result, index))
        place = (left + right) / 2, picture.height - height - 5
        draw.text(place, f"{score:.1f}", fill="black", anchor="ms", font=font)
    return picture


def _shown_strip(result: OddResult) -> tuple[Image.Image, list[float]]:
    """Return the strip as it is shown, and the columns in it where units are cut."""
    beside = BESIDE * (result.cuts[-1] - result.cuts[0]) / len(result.units)
    left = max(0, round(result.cuts[0] - beside))
    strip = Image.fromarray(result.strip[:, left : round(result.cuts[-1] + beside)])
    scale = STRIP_SIDE / max(strip.width, strip.height * 2)
    size = max(1, round(strip.width * scale)), max(1, round(strip.height * scale))
    return strip.resize(size, Image.Resampling.BICUBIC), [(cut - left) * scale for cut in result.cuts]


def _font(cuts: Sequence[float], part: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return a font as high as `part` of the narrowest unit's width, so that texts do not overlap."""
    narrowest = min(right - left for left, right in pairwise(cuts))
    return ImageFont.load_default(min(30.0, max(10.0, part * narrowest)))


def draw_neighbours(result: OddResult) -> Image.Image | None:
    """Draw the odd unit, framed, between its neighbours; None where there is no odd one."""
    if result.odd is None:
        return None
    part, edges = _around(result, result.odd.index, 2)
    ImageDraw.Draw(part).rectangle([edges[0], 0, edges[1], part.height - 1], outline=RED, width=4)
    return part


def crop_of_unit(result: OddResult, index: int) -> Image.Image:
    """Return a unit, enlarged, with half of the neighbour on each side."""
    return _around(result, index, 0.5)[0]


def _around(result: OddResult, index: int, reach: float) -> tuple[Image.Image, tuple[float, float]]:
    """Return a unit with `reach` units on each side, enlarged, and the columns where it begins and ends."""
    start, end = result.cuts[index], result.cuts[index + 1]
    left = max(0, round(start - reach * (end - start)))
    right = min(result.strip.shape[1], round(end + reach * (end - start)))
    part = Image.fromarray(result.strip[:, left:right])
    scale = min(8.0, 900 / part.width, 700 / part.height)
    size = max(1, round(part.width * scale)), max(1, round(part.height * scale))
    return part.resize(size, Image.Resampling.BICUBIC), ((start - left) * scale, (end - left) * scale)


def draw_without_background(image: Image.Image, result: OddResult) -> Image.Image | None:
    """Draw the string on white, its background cut away by GrabCut; None where no units were found.

    It is for looking only: it may cut away a disc, or a damaged one, so nothing is scored by it.
    """
    if not result.units:
        return None
    corners = np.array([unit.polygon for unit in result.units])
    spare = result.axis.period if result.axis else 0.0
    x1, y1 = np.maximum(corners.min((0, 1)) - spare, 0).astype(int)
    x2, y2 = np.minimum(corners.max((0, 1)) + spare, image.size).astype(int)
    part = image.convert("RGB").crop((x1, y1, x2, y2))
    scale = min(1.0, CUT_OUT_SIDE / max(part.size))
    pixels = np.asarray(part.resize((max(1, round(part.width * scale)), max(1, round(part.height * scale)))))
    mask: Array = np.full(pixels.shape[:2], cv2.GC_BGD, np.uint8)
    polygons = [((polygon - (x1, y1)) * scale).round().astype(np.int32) for polygon in corners]
    for polygon in polygons:
        cv2.fillConvexPoly(mask, polygon, cv2.GC_PR_FGD)
    if not ((mask == cv2.GC_BGD).any() and (mask == cv2.GC_PR_FGD).any()):
        return None
    models = np.zeros((2, 1, 65))  # of background and string, which GrabCut fills
    rectangle = (0, 0, 0, 0)  # not looked at, since there is a mask
    bgr = np.ascontiguousarray(pixels[..., ::-1])
    cv2.grabCut(bgr, mask, rectangle, models[0], models[1], 4, cv2.GC_INIT_WITH_MASK)
    shown = np.where(np.isin(mask, (cv2.GC_FGD, cv2.GC_PR_FGD))[..., None], pixels, 255)
    return Image.fromarray(shown.astype(np.uint8))


def _colour(result: OddResult, index: int) -> tuple[int, int, int]:
    if result.odd and index == result.odd.index:
        return RED
    return GREY if result.units[index].left_out else BLUE

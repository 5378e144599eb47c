"""Show what was found: outlined units, the strip with its cuts, scores, the odd one beside its neighbours."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from llava.oddone.result import OddResult, Polygon

RED, BLUE, GREY, YELLOW = (214, 40, 40), (61, 111, 153), (150, 156, 162), (255, 200, 40)
STRIP_SIDE = 1600  # pixels of the longest strip that is shown
SHOWN_SIDE = 1600  # pixels of a photo's longer side, where it is shown
BAR_HEIGHT = 160
MARGIN = 24  # above a strip, for the units' numbers
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
        _number(draw, result.odd.index, _above(result.odd.polygon, scale), RED)
    return shown


def _above(polygon: Polygon, scale: float) -> tuple[float, float]:
    x, y = min(polygon, key=lambda corner: corner[1])
    return x * scale, max(10.0, y * scale - 12)


def _number(
    draw: ImageDraw.ImageDraw, index: int, place: tuple[float, float], colour: tuple[int, int, int]
) -> None:
    draw.text(
        place,
        str(index + 1),
        fill=colour,
        anchor="mm",
        font=ImageFont.load_default(16),
        stroke_width=2,
        stroke_fill="white",
    )


def draw_strip(result: OddResult) -> Image.Image:
    """Draw the straightened string, cut into its units, which are numbered from 1."""
    strip, scale = _shown_strip(result)
    picture = Image.new("RGB", (strip.width, strip.height + MARGIN), "white")
    picture.paste(strip, (0, MARGIN))
    draw = ImageDraw.Draw(picture)
    for cut in result.cuts:
        draw.line([cut * scale, MARGIN, cut * scale, picture.height], fill=YELLOW, width=2)
    for index, (left, right) in enumerate(zip(result.cuts[:-1], result.cuts[1:], strict=True)):
        _number(draw, index, ((left + right) / 2 * scale, MARGIN / 2), _colour(result, index))
        if result.odd and index == result.odd.index:
            draw.rectangle([left * scale, MARGIN, right * scale, picture.height - 1], outline=RED, width=4)
    return picture


def draw_bars(result: OddResult) -> Image.Image:
    """Draw the units' scores as bars, which stand where the units stand in `draw_strip`."""
    strip, scale = _shown_strip(result)
    picture = Image.new("RGB", (strip.width, BAR_HEIGHT + MARGIN), "white")
    draw = ImageDraw.Draw(picture)
    top = max([unit.score for unit in result.units if not unit.left_out], default=1.0)
    for index, (left, right) in enumerate(zip(result.cuts[:-1], result.cuts[1:], strict=True)):
        score = result.units[index].score
        height = BAR_HEIGHT * min(1.0, max(0.0, score) / max(top, 1e-6))
        colour = _colour(result, index)
        draw.rectangle(
            [left * scale + 2, picture.height - height, right * scale - 2, picture.height], fill=colour
        )
        place = (left + right) / 2 * scale, picture.height - height - 9
        draw.text(place, f"{score:.1f}", fill="black", anchor="mm", font=ImageFont.load_default(12))
    return picture


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
    mask = np.full(pixels.shape[:2], cv2.GC_BGD, np.uint8)
    polygons = [((polygon - (x1, y1)) * scale).round().astype(np.int32) for polygon in corners]
    for polygon in polygons:
        cv2.fillConvexPoly(mask, polygon, cv2.GC_PR_FGD)
    if not ((mask == cv2.GC_BGD).any() and (mask == cv2.GC_PR_FGD).any()):
        return None
    models = np.zeros((2, 1, 65))  # of background and string, which GrabCut fills
    mask, _, _ = cv2.grabCut(
        pixels[..., ::-1].copy(), mask, None, models[0], models[1], 4, cv2.GC_INIT_WITH_MASK
    )
    shown = np.where(np.isin(mask, (cv2.GC_FGD, cv2.GC_PR_FGD))[..., None], pixels, 255)
    return Image.fromarray(shown.astype(np.uint8))


def _shown_strip(result: OddResult) -> tuple[Image.Image, float]:
    strip = Image.fromarray(result.strip)
    scale = STRIP_SIDE / max(strip.width, strip.height * 2)
    size = max(1, round(strip.width * scale)), max(1, round(strip.height * scale))
    return strip.resize(size, Image.Resampling.BICUBIC), scale


def _colour(result: OddResult, index: int) -> tuple[int, int, int]:
    if result.odd and index == result.odd.index:
        return RED
    return GREY if result.units[index].left_out else BLUE

"""One scene: layout, background, steel, string, defects, camera. A pure function of (seed, index)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_prep.scenes.background import background
from data_prep.scenes.camera import photograph
from data_prep.scenes.chance import Chance
from data_prep.scenes.exact import arctan2, cosine, hypotenuse, sine
from data_prep.scenes.noise import blur
from data_prep.scenes.raster import SCALE, Box, Layer, Picture, Point, Projection, Strokes, bounds
from data_prep.scenes.steel import nest, ring, shade, truss, wire
from data_prep.scenes.string_types import Bite, StringDefects, StringType
from data_prep.scenes.strings import paint_string

DEFECTS = ("missing disc", "broken disc", "flashover", "pollution", "bird nest")
STRING = "insulator"
_BLOCK = 20  # pictures over which the shares of the kinds are exact
_SHAPES = ((448, 336), (448, 320), (448, 352), (448, 304))


@dataclass(frozen=True)
class Scene:
    """A picture before JPEG compression, its objects, and the quality to save it with.

    A box is (x1, y1, x2, y2) in whole pixels, x2 and y2 just outside the object.
    """

    image: Image.Image
    objects: list[tuple[str, Box]]
    jpeg_quality: int


@dataclass(frozen=True)
class _Layout:
    width: int  # of the final picture
    height: int
    arm: Point  # the string's ends, in drawn pixels
    line: Point
    length: float
    sun: tuple[float, float, float]  # towards the sun: x right, y down, z to the camera
    sunlight: float
    zoom: tuple[float, float]  # relative size of the string at the arm's and at the line's end

    @property
    def direction(self) -> Point:
        """The unit vector from the arm to the line."""
        return (self.line[0] - self.arm[0]) / self.length, (self.line[1] - self.arm[1]) / self.length

    @property
    def whole(self) -> Box:
        return 0, 0, self.width, self.height

    def thickness(self, kind: StringType) -> float:
        """A disc's diameter, in drawn pixels."""
        return self.length / (kind.discs + 1) * kind.ratio


def defects_of(seed: int, index: int, defect_share: float = 0.5) -> tuple[str, ...]:
    """The kinds of defect in picture `index`: none, one, or (one picture in twenty) two.

    In every block of 20 pictures the shares are as even as 20 allows; which kinds get the odd picture
    moves on from block to block.
    """
    block, place = divmod(index, _BLOCK)
    chance = Chance(seed, block, 99)
    rank = chance.order(_BLOCK)[place]
    second = chance.integer(1, len(DEFECTS))
    share = (rank + 0.5) / _BLOCK
    if share >= defect_share:
        return ()
    first = (int(share / defect_share * len(DEFECTS)) + block) % len(DEFECTS)
    if rank == 0:
        return DEFECTS[first], DEFECTS[(first + second) % len(DEFECTS)]
    return (DEFECTS[first],)


def render(seed: int, index: int, *, defect_share: float = 0.5, with_defect: bool = True) -> Scene:
    """Picture `index` of `seed`. Without `with_defect`, the same scene with a sound string."""
    # Every part of a scene has random numbers of its own, so that one cannot shift another's.
    for_layout, for_land, for_string, for_steel, for_twin, for_defect, for_camera = (
        Chance(seed, index, part) for part in range(7)
    )
    kind = StringType.draw(for_string)
    layout = _lay_out(for_layout, kind)
    kinds = defects_of(seed, index, defect_share) if with_defect else ()
    defects = _choose(for_defect, kind, kinds)
    surface_seed = for_string.seed()

    picture = background(for_land, layout.width, layout.height)
    objects: list[tuple[str, Box]] = []
    if for_twin.happens(0.18):
        picture, box = _add_twin(for_twin, picture, layout, kind, surface_seed)
        if box:
            objects.append((STRING, box))
    _steel(for_steel, layout, kind).layer(layout.whole).over(picture)
    box, boxes = _add_string(picture, layout, kind, defects, surface_seed)
    objects.insert(0, (STRING, box or layout.whole))
    if "bird nest" in kinds:
        boxes["bird nest"] = _add_nest(for_defect, picture, layout, kind)
    objects += [(name, box) for name in kinds if (box := boxes[name])]
    return Scene(photograph(for_camera, picture), objects, for_camera.integer(72, 94))


def _lay_out(chance: Chance, kind: StringType) -> _Layout:
    hang = chance.pick(("across", "down", "slanted"), (0.5, 0.22, 0.28))
    if hang == "across":
        turn = chance.uniform(-28, 32) + (180 if chance.happens(0.5) else 0)
    elif hang == "down":
        turn = chance.uniform(70, 110)
    else:
        turn = chance.uniform(*chance.pick(((30, 65), (115, 150)))) + (180 if chance.happens(0.15) else 0)
    angle = turn * (math.pi / 180)
    ux, uy = cosine(angle), sine(angle)
    upright = abs(uy) > chance.uniform(0.55, 0.85)
    shape = chance.pick(_SHAPES) if chance.happens(0.4) else _SHAPES[0]
    width, height = (shape[1], shape[0]) if upright else shape

    # As long as asked for, or as the picture allows with a margin for its thickness.
    margin = 8.0
    length = chance.uniform(0.84, 0.98) * max(width, height)
    thickness = kind.ratio / (kind.discs + 1) * 1.15
    for room, along, across in ((width, abs(ux), abs(uy)), (height, abs(uy), abs(ux))):
        length = min(length, (room - 2 * margin) / (along + across * thickness))
    half = [length * (a + b * thickness) / 2 + margin for a, b in ((abs(ux), abs(uy)), (abs(uy), abs(ux)))]
    x, y = (chance.uniform(h, max(h, room - h)) for h, room in zip(half, (width, height), strict=True))
    dx, dy = ux * length / 2, uy * length / 2
    near = math.sqrt(chance.uniform(1.0, 1.25))
    sun = chance.uniform(-0.9, 0.9), -chance.uniform(0.35, 1.0), chance.uniform(0.15, 0.9)
    far = hypotenuse(hypotenuse(sun[0], sun[1]), sun[2])
    return _Layout(
        width,
        height,
        ((x - dx) * SCALE, (y - dy) * SCALE),
        ((x + dx) * SCALE, (y + dy) * SCALE),
        length * SCALE,
        (sun[0] / far, sun[1] / far, sun[2] / far),
        chance.uniform(0.25, 1.0),
        (near, 1 / near) if kind.caps_near else (1 / near, near),
    )


def _choose(chance: Chance, kind: StringType, kinds: tuple[str, ...]) -> StringDefects:
    """Which discs have what. Two defects of one string never share a disc, pollution apart."""
    run = kind.defect_run
    first = chance.integer(0, kind.discs % run + 1)
    places = [first + run * place for place in chance.order(kind.discs // run)]
    # A gap at the very end of a string would look like a shorter string.
    places.sort(key=lambda p: p > 0 and p + run < kind.discs)
    spans = [range(p, p + run) for p in places]
    defects = StringDefects(seed=chance.seed())
    knots = chance.uniforms(-1, 1, 33)
    thirds = np.arange(3) / 3
    jags = (knots[:-1, None] + (knots[1:] - knots[:-1])[:, None] * thirds).reshape(-1).astype(np.float32)
    if "missing disc" in kinds:
        defects = replace(defects, missing=spans.pop())
    if "broken disc" in kinds:
        # About half of the skirt, on a flank, where the outline shows what is gone, and turned a little
        # towards the camera, where the raw body shows too.
        angle = chance.sign() * chance.uniform(1.05, 1.5)
        half, depth = chance.uniform(1.5, 1.9), chance.uniform(0.22, 0.32)
        struck = spans.pop()
        if chance.happens(0.6) and struck.stop + run <= kind.discs and struck.stop not in defects.missing:
            struck = range(struck.start, struck.stop + run)  # often the next one is hit too
            spans = [other for other in spans if other.start not in struck]
        defects = replace(defects, bite=Bite(struck, angle, half, depth, jags))
    if "flashover" in kinds:
        burnt = spans.pop()
        extra = chance.integer(0, 3) * run
        taken = {*defects.missing, *(defects.bite.units if defects.bite else ())}
        stop = burnt.stop
        while stop < min(burnt.stop + extra, kind.discs) and stop not in taken:
            stop += 1
        defects = replace(defects, scorched=range(burnt.start, stop))
    if "pollution" in kinds:
        count = kind.discs if chance.happens(0.15) else math.ceil(kind.discs * chance.uniform(0.45, 0.85))
        first = chance.integer(0, kind.discs - count + 1)
        defects = replace(defects, polluted=range(first, first + count))
    return defects


def _add_string(
    picture: Picture, layout: _Layout, kind: StringType, defects: StringDefects, seed: int
) -> tuple[Box | None, dict[str, Box | None]]:
    """Draw the string on `picture`, in place; return its box and its defects'."""
    # The flat string's +u points at the camera: from the line to the arm if the caps are near.
    ends, zooms, (ux, uy) = (layout.arm, layout.line), layout.zoom, layout.direction
    if kind.caps_near:
        ends, zooms, (ux, uy) = ends[::-1], zooms[::-1], (-ux, -uy)
    x, y, z = layout.sun
    sun = (ux * x + uy * y, -uy * x + ux * y, z)
    drawn = paint_string(kind, layout.length, sun, layout.sunlight, Chance(seed), defects)

    height, width = drawn.pixels.shape
    pad = (width - layout.length) / 2
    (ax, ay), (bx, by) = ends
    strip = (ax - pad * ux, ay - pad * uy), (bx + pad * ux, by + pad * uy)
    place = Projection.of_strip(width, height, strip, zooms)
    layer = Layer.empty(layout.whole)
    place.pixels(drawn.box, *layer.pixels.shape[::-1]).draw(drawn.pixels, layer.pixels)
    boxes = {name: _mask_box(mask, place, layout) for name, mask in drawn.masks.items()}
    return layer.over(picture), boxes


def _mask_box(mask: NDArray[np.bool_], place: Projection, layout: _Layout) -> Box | None:
    """The box in final pixels of a part of the flat string, where it covers half a pixel or more."""
    box = bounds(mask)
    if not box:
        return None
    canvas = np.zeros((layout.height * SCALE, layout.width * SCALE), np.uint8)
    place.pixels(box, *canvas.shape[::-1]).mark(mask, canvas)
    rows = canvas[::2] + canvas[1::2]
    return bounds(rows[:, ::2] + rows[:, 1::2] >= 2)


def _add_twin(
    chance: Chance, picture: Picture, layout: _Layout, kind: StringType, surface_seed: int
) -> tuple[Picture, Box | None]:
    """A sound parallel string further back: smaller, blurred, hazier."""
    scale = chance.uniform(0.55, 0.8)
    (ax, ay), (bx, by), (ux, uy) = layout.arm, layout.line, layout.direction
    centre = ((ax + bx) / 2, (ay + by) / 2)
    # Towards the side with more room.
    side = 1 if -uy * (layout.width - centre[0]) + ux * (layout.height - centre[1]) > 0 else -1
    offset = side * layout.thickness(kind) * chance.uniform(1.3, 2.0)
    slide = chance.uniform(-0.1, 0.1) * layout.length
    middle = (centre[0] - uy * offset + ux * slide, centre[1] + ux * offset + uy * slide)
    half = layout.length * scale / 2
    twin = replace(
        layout,
        arm=(middle[0] - ux * half, middle[1] - uy * half),
        line=(middle[0] + ux * half, middle[1] + uy * half),
        length=layout.length * scale,
    )
    painted = picture.copy()
    strokes = Strokes()
    for point, way in ((twin.arm, -1), (twin.line, 1)):
        far = (point[0] + way * ux * 2000, point[1] + way * uy * 2000)
        wire(strokes, point, far, 0, 3, (96, 98, 100))
    strokes.layer(layout.whole).over(painted)
    box, _ = _add_string(painted, twin, kind, StringDefects(), surface_seed)
    haze = round(256 * chance.uniform(0.05, 0.25))
    blended = painted.astype(np.uint16) * (256 - haze) + picture.astype(np.uint16) * haze
    return blur((blended >> 8).astype(np.uint8), chance.uniform(1.5, 3.0) / SCALE), box


def _steel(chance: Chance, layout: _Layout, kind: StringType) -> Strokes:
    """The tower's arm at one end of the string, the conductors at the other."""
    strokes = Strokes()
    (ax, ay), (bx, by), (ux, uy) = layout.arm, layout.line, layout.direction
    thickness = layout.thickness(kind)
    tone = chance.uniform(105, 190)
    steel = (round(tone), round(tone * 1.01), round(tone * chance.uniform(0.98, 1.05)))
    hanging = uy > 0.8
    # The arm: away from the string, or sideways when the string hangs from it.
    aside = chance.sign() * chance.uniform(1.0, 1.6) if hanging else chance.uniform(-0.5, 0.5)
    away = arctan2(-uy, -ux) + aside
    cos, sin = cosine(away), sine(away)
    far = 2000.0
    grow = chance.uniform(0.12, 0.3)
    truss(
        strokes.bar,
        (ax - ux * 2, ay - uy * 2),
        (ax + cos * far, ay + sin * far),
        thickness * 0.35,
        thickness * 0.35 + far * grow,
        chance.integer(14, 22),
        chance.uniform(7, 13),
        steel,
    )
    if chance.happens(0.6):  # the tower's body, upright, behind the arm's root
        root = chance.uniform(0.3, 0.8) * thickness * 2.0
        x, y = ax + cos * root * 1.5, ay + sin * root
        wide, lean = thickness * chance.uniform(1.2, 2.4), chance.uniform(-0.12, 0.12)
        start, end = (x - lean * (y + 300), -300.0), (x + lean * (1000 - y), 1100.0)
        panels, width = chance.integer(7, 12), chance.uniform(8, 14)
        truss(strokes.bar, start, end, wide * 0.8, wide * 1.3, panels, width, steel)
    dark = shade((78, 80, 84), chance.uniform(0.7, 1.5))
    bundle = chance.pick((1, 2, 4), (0.5, 0.35, 0.15))
    thick = chance.uniform(3.0, 5.5)
    spread = thickness * chance.uniform(0.25, 0.5)
    for strand in range(bundle):
        shift = spread * (strand - (bundle - 1) / 2)
        end = (bx - uy * shift, by + ux * shift)
        if hanging:
            slope = chance.uniform(-0.15, 0.15)
            start = bx, by + shift * 0.6
            for way in (-1, 1):
                wire(strokes, start, (bx + way * 1400, start[1] + way * slope * 900), 60, thick, dark)
            continue
        wire(strokes, (bx, by), end, 0, thick, dark)
        wire(strokes, end, (end[0] + ux * 1300, end[1] + uy * 1300), chance.uniform(0, 60), thick, dark)
        # The jumper hangs back under the string to the other side of the tower.
        if strand == 0 or chance.happens(0.5):
            back = ax - ux * 500, ay + thickness * 1.5
            wire(strokes, end, back, thickness * chance.uniform(0.8, 2.0), thick, dark)
    if chance.happens(0.35):
        radius, width = thickness * chance.uniform(0.5, 0.7), chance.uniform(6, 9)
        ring(strokes, (bx, by), (ux, uy), radius, 0.4, width, (150, 152, 155))
    return strokes


def _add_nest(chance: Chance, picture: Picture, layout: _Layout, kind: StringType) -> Box | None:
    """Draw a nest at the arm's end on `picture`, in place; return its box."""
    (ax, ay), (ux, uy) = layout.arm, layout.direction
    radius = min(max(layout.thickness(kind) * chance.uniform(0.6, 0.85), 56), 100)
    inward = chance.uniform(-0.1, 0.35) * radius
    x, y = ax + ux * inward, ay + uy * inward - radius * chance.uniform(0.1, 0.4)
    # Whole in the picture, or nearly.
    x = min(max(x, radius * 0.8), layout.width * SCALE - radius * 0.8)
    y = min(max(y, radius * 0.6), layout.height * SCALE - radius * 0.6)
    layer = nest(chance, (x, y), radius, layout.sun[0]).layer(layout.whole)
    return layer.over(picture)

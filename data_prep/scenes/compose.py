"""One scene: layout, background, steel, string, defects, camera. A pure function of (seed, index)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from data_prep.scenes.background import background
from data_prep.scenes.noise import field
from data_prep.scenes.steel import Point, nest, ring, shade, truss, wire
from data_prep.scenes.string_types import Bite, StringDefects, StringType
from data_prep.scenes.strings import paint_string

Box = tuple[int, int, int, int]

DEFECTS = ("missing disc", "broken disc", "flashover", "pollution", "bird nest")
STRING = "insulator"
SCALE = 2  # pixels drawn per final pixel, each way
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


def _stream(seed: int, index: int, part: int) -> np.random.Generator:
    """Every part of a scene has random numbers of its own, so that one cannot shift another's."""
    return np.random.default_rng([seed, index, part])


def defects_of(seed: int, index: int, defect_share: float = 0.5) -> tuple[str, ...]:
    """The kinds of defect in picture `index`: none, one, or (one picture in twenty) two.

    In every block of 20 pictures the shares are as even as 20 allows; which kinds get the odd picture
    moves on from block to block.
    """
    block, place = divmod(index, _BLOCK)
    rng = _stream(seed, block, 99)
    rank = int(rng.permutation(_BLOCK)[place])
    second = int(rng.integers(1, len(DEFECTS)))
    share = (rank + 0.5) / _BLOCK
    if share >= defect_share:
        return ()
    first = (int(share / defect_share * len(DEFECTS)) + block) % len(DEFECTS)
    if rank == 0:
        return DEFECTS[first], DEFECTS[(first + second) % len(DEFECTS)]
    return (DEFECTS[first],)


def render(seed: int, index: int, *, defect_share: float = 0.5, with_defect: bool = True) -> Scene:
    """Picture `index` of `seed`. Without `with_defect`, the same scene with a sound string."""
    layout_rng, land_rng, string_rng, steel_rng, twin_rng, defect_rng, camera_rng = (
        _stream(seed, index, part) for part in range(7)
    )
    kind = StringType.draw(string_rng)
    layout = _lay_out(layout_rng, kind)
    kinds = defects_of(seed, index, defect_share) if with_defect else ()
    defects = _choose(defect_rng, kind, kinds)
    surface_seed = int(string_rng.integers(2**32))

    size = (layout.width * SCALE, layout.height * SCALE)
    canvas = background(land_rng, layout.width, layout.height).resize(size, Image.Resampling.BICUBIC)
    objects: list[tuple[str, Box]] = []

    if twin_rng.random() < 0.18:
        canvas, box = _add_twin(twin_rng, canvas, layout, kind, surface_seed)
        if box:
            objects.append((STRING, box))
    _add_steel(steel_rng, ImageDraw.Draw(canvas), layout, kind)

    rng = np.random.default_rng(surface_seed)
    canvas, alpha, masks = _add_string(canvas, layout, kind, defects, rng)
    objects.insert(0, (STRING, _box(alpha) or (0, 0, layout.width, layout.height)))
    if "bird nest" in kinds:
        mask = Image.new("L", size)
        _add_nest(defect_rng, canvas, mask, layout, kind)
        masks["bird nest"] = mask
    for name in kinds:
        box = _box(masks[name])
        if box:
            objects.append((name, box))
    image = _photograph(camera_rng, canvas)
    return Scene(image, objects, int(camera_rng.integers(72, 94)))


def _box(mask: Image.Image) -> Box | None:
    """The mask's bounds in final pixels, counting pixels that are covered by a third or more."""
    return mask.reduce(SCALE).point(lambda value: 255 * (value >= 85)).getbbox()


def _lay_out(rng: np.random.Generator, kind: StringType) -> _Layout:
    hang = rng.choice(["across", "down", "slanted"], p=[0.5, 0.22, 0.28])
    if hang == "across":
        turn = rng.uniform(-28, 32) + (180 if rng.random() < 0.5 else 0)
    elif hang == "down":
        turn = rng.uniform(70, 110)
    else:
        turn = rng.choice([rng.uniform(30, 65), rng.uniform(115, 150)]) + (180 if rng.random() < 0.15 else 0)
    angle = math.radians(turn)
    upright = abs(math.sin(angle)) > rng.uniform(0.55, 0.85)
    shape = _SHAPES[int(rng.integers(len(_SHAPES)))] if rng.random() < 0.4 else _SHAPES[0]
    width, height = (shape[1], shape[0]) if upright else shape

    # As long as asked for, or as the picture allows with a margin for its thickness.
    cosine, sine = abs(math.cos(angle)), abs(math.sin(angle))
    margin = 8.0
    length = rng.uniform(0.84, 0.98) * max(width, height)
    thickness = kind.ratio / (kind.discs + 1)
    for room, along, across in ((width, cosine, sine), (height, sine, cosine)):
        length = min(length, (room - 2 * margin) / (along + across * thickness * 1.15))
    half = [(length * (a + b * thickness * 1.15)) / 2 + margin for a, b in ((cosine, sine), (sine, cosine))]
    centre = [rng.uniform(h, max(h, room - h)) for h, room in zip(half, (width, height), strict=True)]
    dx, dy = math.cos(angle) * length / 2, math.sin(angle) * length / 2
    near = rng.uniform(1.0, 1.25)
    sun = np.asarray((rng.uniform(-0.9, 0.9), -rng.uniform(0.35, 1.0), rng.uniform(0.15, 0.9)))
    sun /= np.linalg.norm(sun)
    return _Layout(
        width,
        height,
        ((centre[0] - dx) * SCALE, (centre[1] - dy) * SCALE),
        ((centre[0] + dx) * SCALE, (centre[1] + dy) * SCALE),
        length * SCALE,
        (float(sun[0]), float(sun[1]), float(sun[2])),
        float(rng.uniform(0.25, 1.0)),
        (math.sqrt(near), 1 / math.sqrt(near)) if kind.caps_near else (1 / math.sqrt(near), math.sqrt(near)),
    )


def _choose(rng: np.random.Generator, kind: StringType, kinds: tuple[str, ...]) -> StringDefects:
    """Which discs have what. Two defects of one string never share a disc, pollution apart."""
    run = kind.defect_run
    spare = kind.discs % run
    first = int(rng.integers(0, spare + 1))
    places = [first + run * int(p) for p in rng.permutation(kind.discs // run)]
    # A gap at the very end of a string would look like a shorter string.
    places.sort(key=lambda p: p > 0 and p + run < kind.discs)
    runs = [range(p, p + run) for p in places]
    defects = StringDefects(seed=int(rng.integers(2**32)))
    jags = np.asarray(np.interp(np.arange(96), np.arange(0, 97, 3), rng.uniform(-1, 1, 33)), np.float32)
    if "missing disc" in kinds:
        defects = replace(defects, missing=runs.pop())
    if "broken disc" in kinds:
        # About half of the skirt, on a flank, where the outline shows what is gone, and turned a little
        # towards the camera, where the raw body shows too.
        angle = float(rng.choice([-1, 1]) * rng.uniform(1.05, 1.5))
        half, depth = float(rng.uniform(1.5, 1.9)), float(rng.uniform(0.22, 0.32))
        struck = runs.pop()
        if rng.random() < 0.6 and struck.stop + run <= kind.discs and struck.stop not in defects.missing:
            struck = range(struck.start, struck.stop + run)  # often the next one is hit too
            runs = [other for other in runs if other.start not in struck]
        defects = replace(defects, bite=Bite(struck, angle, half, depth, jags))
    if "flashover" in kinds:
        burnt = runs.pop()
        extra = int(rng.integers(0, 3)) * run
        taken = {*defects.missing, *(defects.bite.units if defects.bite else ())}
        stop = burnt.stop
        while stop < min(burnt.stop + extra, kind.discs) and stop not in taken:
            stop += 1
        defects = replace(defects, scorched=range(burnt.start, stop))
    if "pollution" in kinds:
        count = kind.discs if rng.random() < 0.15 else math.ceil(kind.discs * rng.uniform(0.45, 0.85))
        first = int(rng.integers(0, kind.discs - count + 1))
        defects = replace(defects, polluted=range(first, first + count))
    return defects


def _add_string(
    canvas: Image.Image, layout: _Layout, kind: StringType, defects: StringDefects, rng: np.random.Generator
) -> tuple[Image.Image, Image.Image, dict[str, Image.Image]]:
    """The canvas with the string on it, the string's alpha and its defects' masks on the canvas."""
    (ax, ay), (bx, by) = layout.arm, layout.line
    # The flat string's +u points at the camera: from the line to the arm if the caps are near.
    sign = -1 if kind.caps_near else 1
    cosine, sine = sign * (bx - ax) / layout.length, sign * (by - ay) / layout.length
    x, y, z = layout.sun
    sun = (cosine * x + sine * y, -sine * x + cosine * y, z)
    drawn = paint_string(kind, layout.length, sun, layout.sunlight, rng, defects)

    height, width = drawn.alpha.shape
    pad = (width - layout.length) / 2
    start, end = ((bx, by), (ax, ay)) if kind.caps_near else ((ax, ay), (bx, by))
    zooms = layout.zoom[::-1] if kind.caps_near else layout.zoom
    corners: list[Point] = []
    for (px, py), outward, zoom in ((start, -1, zooms[0]), (end, 1, zooms[1])):
        ex, ey = px + outward * pad * cosine, py + outward * pad * sine
        reach = zoom * height / 2
        corners += [(ex + sine * reach, ey - cosine * reach), (ex - sine * reach, ey + cosine * reach)]
    flat = [(0.0, 0.0), (0.0, float(height)), (float(width), 0.0), (float(width), float(height))]
    mapping = _homography(corners, flat)

    def place(image: Image.Image) -> Image.Image:
        return image.transform(canvas.size, Image.Transform.PERSPECTIVE, mapping, Image.Resampling.BILINEAR)

    premultiplied = drawn.colour * drawn.alpha[..., None]
    colour = place(Image.fromarray((premultiplied * 255).astype(np.uint8)))
    alpha = place(Image.fromarray((drawn.alpha * 255).astype(np.uint8)))
    behind = ImageChops.multiply(canvas, Image.merge("RGB", [ImageChops.invert(alpha)] * 3))
    masks = {name: place(Image.fromarray(mask.astype(np.uint8) * 255)) for name, mask in drawn.masks.items()}
    return ImageChops.add(behind, colour), alpha, masks


def _homography(source: list[Point], target: list[Point]) -> list[float]:
    """Pillow's eight coefficients that take `source` points (of the result) to `target` points."""
    rows, values = [], []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return [float(c) for c in np.linalg.solve(np.asarray(rows), np.asarray(values))]


def _add_twin(
    rng: np.random.Generator, canvas: Image.Image, layout: _Layout, kind: StringType, surface_seed: int
) -> tuple[Image.Image, Box | None]:
    """A sound parallel string further back: smaller, blurred, hazier."""
    scale = rng.uniform(0.55, 0.8)
    thickness = layout.length / (kind.discs + 1) * kind.ratio
    (ax, ay), (bx, by) = layout.arm, layout.line
    ux, uy = (bx - ax) / layout.length, (by - ay) / layout.length
    centre = ((ax + bx) / 2, (ay + by) / 2)
    # Towards the side with more room.
    side = 1 if (-uy * (canvas.width / 2 - centre[0]) + ux * (canvas.height / 2 - centre[1])) > 0 else -1
    offset = side * thickness * rng.uniform(1.3, 2.0)
    slide = rng.uniform(-0.1, 0.1) * layout.length
    middle = (centre[0] - uy * offset + ux * slide, centre[1] + ux * offset + uy * slide)
    half = layout.length * scale / 2
    twin = replace(
        layout,
        arm=(middle[0] - ux * half, middle[1] - uy * half),
        line=(middle[0] + ux * half, middle[1] + uy * half),
        length=layout.length * scale,
    )
    painted = canvas.copy()
    draw = ImageDraw.Draw(painted)
    for point, way in ((twin.arm, -1), (twin.line, 1)):
        far = (point[0] + way * ux * 2000, point[1] + way * uy * 2000)
        wire(draw, point, far, 0, 3, (96, 98, 100))
    painted, alpha, _ = _add_string(painted, twin, kind, StringDefects(), np.random.default_rng(surface_seed))
    painted = Image.blend(painted, canvas, rng.uniform(0.05, 0.25))
    return painted.filter(ImageFilter.GaussianBlur(rng.uniform(1.5, 3.0))), _box(alpha)


def _add_steel(
    rng: np.random.Generator, draw: ImageDraw.ImageDraw, layout: _Layout, kind: StringType
) -> None:
    """The tower's arm at one end of the string, the conductors at the other."""
    (ax, ay), (bx, by) = layout.arm, layout.line
    ux, uy = (bx - ax) / layout.length, (by - ay) / layout.length
    thickness = layout.length / (kind.discs + 1) * kind.ratio
    tone = rng.uniform(105, 190)
    steel = (round(tone), round(tone * 1.01), round(tone * rng.uniform(0.98, 1.05)))
    hanging = uy > 0.8
    # The arm: away from the string, or sideways when the string hangs from it.
    away = math.atan2(-uy, -ux) + (
        rng.choice([-1, 1]) * rng.uniform(1.0, 1.6) if hanging else rng.uniform(-0.5, 0.5)
    )
    far = 2000.0
    grow = rng.uniform(0.12, 0.3)
    truss(
        draw,
        (ax - ux * 2, ay - uy * 2),
        (ax + math.cos(away) * far, ay + math.sin(away) * far),
        thickness * 0.35,
        thickness * 0.35 + far * grow,
        int(rng.integers(14, 22)),
        rng.uniform(7, 13),
        steel,
    )
    if rng.random() < 0.6:  # the tower's body, upright, behind the arm's root
        root = rng.uniform(0.3, 0.8) * thickness * 2.0
        x, y = ax + math.cos(away) * root * 1.5, ay + math.sin(away) * root
        wide, lean = thickness * rng.uniform(1.2, 2.4), rng.uniform(-0.12, 0.12)
        start, end = (x - lean * (y + 300), -300.0), (x + lean * (1000 - y), 1100.0)
        truss(draw, start, end, wide * 0.8, wide * 1.3, int(rng.integers(7, 12)), rng.uniform(8, 14), steel)
    dark = shade((78, 80, 84), rng.uniform(0.7, 1.5))
    bundle = int(rng.choice([1, 2, 4], p=[0.5, 0.35, 0.15]))
    thick = rng.uniform(3.0, 5.5)
    spread = thickness * rng.uniform(0.25, 0.5)
    for strand in range(bundle):
        shift = spread * (strand - (bundle - 1) / 2)
        end = (bx - uy * shift, by + ux * shift)
        if hanging:
            slope = rng.uniform(-0.15, 0.15)
            for way in (-1, 1):
                wire(
                    draw,
                    (bx, by + shift * 0.6),
                    (bx + way * 1400, by + shift * 0.6 + way * slope * 900),
                    60,
                    thick,
                    dark,
                )
        else:
            wire(draw, (bx, by), end, 0, thick, dark)
            wire(draw, end, (end[0] + ux * 1300, end[1] + uy * 1300), rng.uniform(0, 60), thick, dark)
            # The jumper hangs back under the string to the other side of the tower.
            if strand == 0 or rng.random() < 0.5:
                wire(
                    draw,
                    end,
                    (ax - ux * 500, ay + thickness * 1.5),
                    thickness * rng.uniform(0.8, 2.0),
                    thick,
                    dark,
                )
    if rng.random() < 0.35:
        ring(
            draw,
            (bx, by),
            (ux, uy),
            thickness * rng.uniform(0.5, 0.7),
            0.4,
            rng.uniform(6, 9),
            (150, 152, 155),
        )


def _add_nest(
    rng: np.random.Generator, canvas: Image.Image, mask: Image.Image, layout: _Layout, kind: StringType
) -> None:
    (ax, ay), (bx, by) = layout.arm, layout.line
    ux, uy = (bx - ax) / layout.length, (by - ay) / layout.length
    thickness = layout.length / (kind.discs + 1) * kind.ratio
    radius = min(max(thickness * rng.uniform(0.6, 0.85), 56), 100)
    inward = rng.uniform(-0.1, 0.35) * radius
    x, y = ax + ux * inward, ay + uy * inward - radius * rng.uniform(0.1, 0.4)
    # Whole in the picture, or nearly.
    x = min(max(x, radius * 0.8), canvas.width - radius * 0.8)
    y = min(max(y, radius * 0.6), canvas.height - radius * 0.6)
    nest(rng, ImageDraw.Draw(canvas), ImageDraw.Draw(mask), (x, y), radius, layout.sun[0])


def _photograph(rng: np.random.Generator, canvas: Image.Image) -> Image.Image:
    """What the camera makes of it: shadow bands, blur, exposure, colour cast, vignette, noise."""
    image = canvas.reduce(SCALE)
    if rng.random() < 0.35:  # slight shake
        reach = rng.uniform(0.6, 1.6)
        turn = rng.uniform(0, math.pi)
        shift = (reach * math.cos(turn), reach * math.sin(turn))
        moved = image.transform(
            image.size, Image.Transform.AFFINE, (1, 0, shift[0], 0, 1, shift[1]), Image.Resampling.BILINEAR
        )
        image = Image.blend(image, moved, 0.5)
    image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.0, 0.8))))
    values = np.asarray(image, np.float32) / np.float32(255)
    height, width = values.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    if rng.random() < 0.25:  # the shadow of a member or of a cloud's edge
        turn, place = rng.uniform(0, math.pi), rng.uniform(-0.6, 0.6)
        away = np.abs(x * math.cos(turn) + y * math.sin(turn) - place)
        band = 1 / (1 + np.exp((away - rng.uniform(0.08, 0.3)) / 0.03))
        values = values * (1 - rng.uniform(0.2, 0.45) * band)[..., None]
    values = values * (1 - rng.uniform(0, 0.2) * (x * x + y * y) / 2)[..., None]
    haze = rng.uniform(0, 0.14)
    values = values * (1 - haze) + haze * 0.85
    cast = rng.uniform(0.93, 1.07, 3).astype(np.float32)
    values = np.clip(values * cast * rng.uniform(0.85, 1.15), 0, 1) ** rng.uniform(0.85, 1.15)
    noise: NDArray[np.float32] = rng.standard_normal((height, width, 3), np.float32)
    grain = field(rng, height, width, 3, 1)[..., None] - 0.5
    values = values + noise * rng.uniform(0.004, 0.022) + grain * rng.uniform(0, 0.03)
    return Image.fromarray((np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8))

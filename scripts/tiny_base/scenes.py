"""Generic scenes that the embedded base model learns to see and to talk about: shapes, colours, rows.

Nothing here is an insulator. A scene holds either a few simple shapes or a row of repeated elements that
may have a gap, a broken, an odd or a stained element, a dull run, or a tangle of lines; questions.py asks
about it. Scene `index` of seed `seed` is a pure function of both. Besides its picture a scene carries dense
labels: for each of the vision tower's patches, which shapes, colours and row conditions lie in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 144  # pixels a side, the tiny model's input
PATCH = 12
GRID = SIZE // PATCH
SCALE = 2  # supersampling
TRAIN_SEED, HELD_OUT_SEED = 1, 2  # of scenes that the base learns from, and that it is scored on

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (205, 40, 40),
    "green": (45, 150, 60),
    "blue": (45, 80, 200),
    "yellow": (235, 210, 50),
    "white": (238, 238, 235),
    "black": (25, 25, 28),
    "purple": (130, 55, 160),
    "orange": (240, 130, 30),
    "brown": (115, 70, 40),
    "gray": (135, 135, 138),
    "pink": (240, 150, 185),
    "cyan": (70, 195, 205),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "diamond", "bar")
CONDITIONS = ("gap", "broken", "odd", "stained", "dull", "tangle")
PLACES = tuple(
    f"{v} {h}".replace("middle centre", "centre").replace("middle ", "")
    for v in ("top", "middle", "bottom")
    for h in ("left", "centre", "right")
)

# Dense label channels, in this order: shapes, "element" (of a row), conditions, colours, and "row": the band
# that a whole row would cover, gaps and lost parts included.
CHANNELS = (*SHAPES, "element", *CONDITIONS, *COLOURS, "row")
MINIMUM_SHARE = 0.08  # of a patch's area, from which a channel counts as present


@dataclass
class Thing:
    """A shape on its own: its name, colour and box (x1, y1, x2, y2) in pixels of the SIZE x SIZE picture."""

    shape: str
    colour: str
    box: tuple[float, float, float, float]


@dataclass
class Row:
    """A row of `count` repeated elements; `condition` is None for a whole row, `box` is its place."""

    shape: str
    colour: str
    count: int
    condition: str | None
    box: tuple[float, float, float, float] | None


@dataclass
class Scene:
    image: Image.Image
    labels: np.ndarray  # (GRID, GRID, len(CHANNELS)) bool
    things: list[Thing] = field(default_factory=list)
    row: Row | None = None


def place_name(box: tuple[float, float, float, float]) -> str:
    """Which of the nine PLACES the centre of `box` lies in."""
    column = min(2, max(0, int((box[0] + box[2]) / 2 * 3 / SIZE)))
    line = min(2, max(0, int((box[1] + box[3]) / 2 * 3 / SIZE)))
    return PLACES[3 * line + column]


class _Canvas:
    """The picture at SCALE times its size beside label maps at its size: one for what a pixel is, one for its
    colour (0 = nothing, else 1 + channel)."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image
        self.draw = ImageDraw.Draw(image)
        self.kind = Image.new("L", (SIZE, SIZE))
        self.colour = Image.new("L", (SIZE, SIZE))
        self.condition = Image.new("L", (SIZE, SIZE))
        self.band = Image.new("L", (SIZE, SIZE))
        self._maps = {
            name: ImageDraw.Draw(getattr(self, name)) for name in ("kind", "colour", "condition", "band")
        }

    def polygon(self, points: np.ndarray, fill: tuple[int, ...], **labels: int) -> None:
        """Fill the polygon `points` (N, 2) in pixels, and set the named label maps inside it."""
        self.draw.polygon([(x * SCALE, y * SCALE) for x, y in points.tolist()], fill=fill)
        self.label(points, **labels)

    def label(self, points: np.ndarray, **labels: int) -> None:
        flat = [tuple(point) for point in points.tolist()]
        for name, value in labels.items():
            self._maps[name].polygon(flat, fill=value)

    def dense(self) -> np.ndarray:
        shares = np.zeros((GRID, GRID, len(CHANNELS) + 1), dtype=np.float32)
        cell = np.arange(SIZE) // PATCH
        index = (cell[:, None] * GRID + cell[None, :]) * (len(CHANNELS) + 1)
        for layer in (self.kind, self.colour, self.condition, self.band):
            counts = np.bincount((index + np.asarray(layer)).ravel(), minlength=shares.size)
            shares += counts.reshape(shares.shape)
        return shares[..., 1:] >= MINIMUM_SHARE * PATCH * PATCH


def _outline(shape: str) -> np.ndarray:
    """The shape as a polygon (N, 2) inside [-1, 1]^2. The caller cuts the ring's hole."""
    if shape in ("circle", "ring"):
        angle = np.linspace(0, 2 * math.pi, 20, endpoint=False)
        return np.stack([np.cos(angle), np.sin(angle)], 1)
    if shape == "square":
        return np.array([(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)])
    if shape == "triangle":
        return np.array([(0, -1), (0.95, 0.8), (-0.95, 0.8)])
    if shape == "diamond":
        return np.array([(0, -1), (0.72, 0), (0, 1), (-0.72, 0)])
    if shape == "bar":
        return np.array([(-1, -0.28), (1, -0.28), (1, 0.28), (-1, 0.28)])
    if shape == "cross":
        a = 0.34
        corners = [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a)]
        return np.array([*corners, (a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a), (-a, -a)])
    if shape == "star":
        angle = np.arange(10) * math.pi / 5 - math.pi / 2
        radius = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    raise ValueError(shape)


def _turn(points: np.ndarray, angle: float) -> np.ndarray:
    c, s = math.cos(angle), math.sin(angle)
    return points @ np.array([(c, s), (-s, c)])


def _paint(colour: str, rng: np.random.Generator, jitter: int = 18) -> tuple[int, int, int]:
    red, green, blue = (int(np.clip(v + rng.integers(-jitter, jitter + 1), 0, 255)) for v in COLOURS[colour])
    return red, green, blue


def _shade(paint: tuple[int, ...], factor: float) -> tuple[int, ...]:
    return tuple(int(np.clip(value * factor, 0, 255)) for value in paint)


def _background(rng: np.random.Generator) -> Image.Image:
    """A texture between two or three random colours, from flat to busy, some with a horizon or stripes."""
    side = SIZE * SCALE
    field_ = np.zeros((SIZE, SIZE), dtype=np.float32)
    for _ in range(int(rng.integers(1, 4))):
        coarse = int(rng.choice([2, 3, 5, 9, 18, 36, 72]))
        noise = Image.fromarray(rng.random((coarse, coarse), dtype=np.float32))
        field_ += float(rng.uniform(0.2, 1)) * np.asarray(
            noise.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        )
    field_ = (field_ - field_.min()) / max(float(np.ptp(field_)), 1e-6)
    low, high = rng.integers(20, 236, (2, 3)).astype(np.float32)
    high = low + (high - low) * float(rng.uniform(0.05, 0.9))
    pixels = low + field_[..., None] * (high - low)
    if rng.random() < 0.3:  # a horizon: another plain or sloping half
        slope, offset = float(rng.normal(0, 0.3)), float(rng.uniform(0.15, 0.85)) * SIZE
        below = np.arange(SIZE)[:, None] > offset + slope * (np.arange(SIZE)[None, :] - SIZE / 2)
        other = rng.integers(40, 250, 3).astype(np.float32)
        pixels = np.where(below[..., None], pixels, 0.25 * pixels + 0.75 * other)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).resize(
        (side, side), Image.Resampling.BILINEAR
    )
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, 5)) if rng.random() < 0.5 else 0):  # stray lines
        ends = rng.uniform(-0.2, 1.2, 4) * side
        draw.line(ends.tolist(), fill=tuple(rng.integers(20, 236, 3).tolist()), width=int(rng.integers(1, 6)))
    return image


def _distinct(avoid: tuple[int, ...], rng: np.random.Generator, among: tuple[str, ...]) -> str:
    """A colour name that differs visibly from the RGB value `avoid`."""
    while True:
        name = str(rng.choice(among))
        if sum(abs(a - b) for a, b in zip(COLOURS[name], avoid, strict=True)) > 110:
            return name


def _behind(image: Image.Image, x: float, y: float) -> tuple[int, ...]:
    clamp = SIZE * SCALE - 1
    colour = image.getpixel((min(clamp, max(0, int(x * SCALE))), min(clamp, max(0, int(y * SCALE)))))
    assert isinstance(colour, tuple)  # the scene is RGB
    return colour


def _draw_shape(
    canvas: _Canvas, shape: str, colour: str, centre: np.ndarray, radius: float, rng: np.random.Generator
) -> Thing:
    angle = float(rng.normal(0, 0.15)) + (float(rng.uniform(0, math.pi)) if shape == "bar" else 0.0)
    points = _turn(_outline(shape), angle) * radius + centre
    paint = _paint(colour, rng)
    labels = {"kind": 1 + CHANNELS.index(shape), "colour": 1 + CHANNELS.index(colour)}
    if shape == "ring":
        hole = (points - centre) * 0.55 + centre
        band = np.concatenate([points, points[:1], hole[:1], hole[:0:-1], hole[:1]])
        canvas.polygon(band, paint, **labels)
    else:
        canvas.polygon(points, paint, **labels)
        if rng.random() < 0.5:  # a lighter or darker inner part, so that flat paint is no cue
            inner = (points - centre) * 0.6 + centre + rng.normal(0, 0.08 * radius, 2)
            canvas.draw.polygon(
                [(x * SCALE, y * SCALE) for x, y in inner.tolist()],
                fill=_shade(paint, float(rng.uniform(0.85, 1.15))),
            )
    low, high = points.min(0), points.max(0)
    return Thing(shape, colour, (float(low[0]), float(low[1]), float(high[0]), float(high[1])))


def _draw_things(canvas: _Canvas, rng: np.random.Generator, most: int, taken: list[Thing]) -> list[Thing]:
    things: list[Thing] = []
    for _ in range(most):
        radius = float(rng.uniform(8, 24))
        for _attempt in range(12):
            centre = rng.uniform(radius + 1, SIZE - radius - 1, 2)
            apart = all(
                max(abs(centre[0] - (t.box[0] + t.box[2]) / 2), abs(centre[1] - (t.box[1] + t.box[3]) / 2))
                > radius + 2 + max(t.box[2] - t.box[0], t.box[3] - t.box[1]) / 2
                for t in [*things, *taken]
            )
            if apart:
                break
        else:
            continue
        colour = _distinct(_behind(canvas.image, *centre), rng, tuple(COLOURS))
        things.append(_draw_shape(canvas, str(rng.choice(SHAPES)), colour, centre, radius, rng))
    return things


ELEMENTS = ("ellipse", "slab", "lens", "cone", "ball", "fin")


def _element(kind: str, width: float, depth: float) -> np.ndarray:
    """An element's outline (N, 2): x along the row (+-`depth`), y across it (+-`width`)."""
    angle = np.linspace(0, 2 * math.pi, 18, endpoint=False)
    if kind in ("ellipse", "ball"):
        unit = np.stack([np.cos(angle), np.sin(angle)], 1)
    elif kind == "slab":
        unit = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * 0.9
    elif kind == "lens":
        unit = np.array([(-1, 0), (-0.3, -1), (0.3, -1), (1, 0), (0.3, 1), (-0.3, 1)])
    elif kind == "cone":
        unit = np.array([(-1, -0.35), (0.7, -1), (1, -0.9), (1, 0.9), (0.7, 1), (-1, 0.35)])
    else:  # fin: thin, leaning
        unit = np.array([(-0.9, -1), (-0.1, -1), (0.9, 1), (0.1, 1)])
    return unit * (depth, width)


def _blob(centre: np.ndarray, radius: float, rng: np.random.Generator) -> np.ndarray:
    angle = np.linspace(0, 2 * math.pi, 9, endpoint=False)
    reach = radius * rng.uniform(0.5, 1.2, 9)
    return centre + np.stack([np.cos(angle) * reach, np.sin(angle) * reach], 1)


@dataclass
class _RowStyle:
    """How a row looks; lengths in pixels of the scene."""

    kind: str
    colour: str
    paint: tuple[int, ...]
    angle: float
    pitch: float
    depth: float
    width: float
    axis: np.ndarray
    across: np.ndarray
    centres: list[np.ndarray]
    condition: str | None
    affected: range
    highlight: float
    outlined: bool
    tiers: bool  # a smaller second ring on every element
    dull_paint: np.ndarray
    dull_share: float
    labels: dict[str, int]


def _draw_row(
    canvas: _Canvas,
    rng: np.random.Generator,
    condition: str | None,
    *,
    plain: bool = False,
    close: bool = False,
) -> Row:
    """Draw a row of elements along a rod.

    Args:
        canvas: Where to draw.
        rng: The source of chance; the order of its draws is part of what a seed means.
        condition: What is wrong with some of the elements, None for nothing.
        plain: Draw a row in the background: sound, and not labelled as the subject.
        close: Draw it as seen from nearer: longer, with broader elements.
    """
    style = _draw_rod(canvas, rng, condition, plain, close)
    count = len(style.centres)
    marked: list[np.ndarray] = []
    order = range(count) if rng.random() < 0.5 else range(count - 1, -1, -1)
    for index in order:
        marked += _draw_element(canvas, rng, style, index)
    if condition == "tangle":
        marked.append(_draw_tangle(canvas, rng, style.centres))
    if plain or condition is None:
        return Row(style.kind, style.colour, count, None, None)
    for points in marked:
        canvas.label(points, condition=1 + CHANNELS.index(condition))
    everything = np.concatenate(marked)
    low, high = everything.min(0), everything.max(0)
    box = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
    return Row(style.kind, style.colour, count, condition, box)


def _draw_rod(
    canvas: _Canvas, rng: np.random.Generator, condition: str | None, plain: bool, close: bool
) -> _RowStyle:
    """Choose a row's place and style, and draw the rod that its elements sit on."""
    angle = float(rng.uniform(0, math.pi * 2))
    count = int(rng.integers(5, 11 if close else 12))
    length = (
        float(rng.uniform(100, 150))
        if close
        else float(rng.uniform(60, 130) if plain else rng.uniform(75, 140))
    )
    pitch = length / count
    axis = np.array([math.cos(angle), math.sin(angle)])
    across = np.array([-axis[1], axis[0]])
    middle = np.array([SIZE / 2, SIZE / 2]) + rng.uniform(-1, 1, 2) * max(3.0, (SIZE - length) / 3)
    kind = str(rng.choice(ELEMENTS))
    depth = max(1.8, pitch * float(rng.uniform(0.26, 0.5)))
    width = depth * (1.0 if kind == "ball" else float(rng.uniform(1.3, 3.2)))
    width = min(max(width, 7.0 if close else 6.0), 26.0)
    colour = _distinct(_behind(canvas.image, *middle), rng, tuple(COLOURS))
    paint = _paint(colour, rng)
    rod = _shade(_paint(str(rng.choice(["gray", "black", "brown", "white"])), rng), 0.9)
    bend = float(rng.normal(0, 0.02)) * length
    centres = []
    for i in range(count):
        t = (i - (count - 1) / 2) / count
        centres.append(middle + axis * t * length + across * bend * (4 * t * t))
    if not plain:
        sides = [np.array([c + side * across * width for c in centres]) for side in (1, -1)]
        canvas.label(np.concatenate([sides[0], sides[1][::-1]]), band=1 + CHANNELS.index("row"))
    start, stop = middle - axis * length * 0.56, middle + axis * length * 0.56
    has_rod = rng.random() < 0.8
    rod_width = max(1, int(SCALE * float(rng.uniform(0.6, 2.2))))
    if has_rod:
        reach = float(rng.choice([1.0, 1.0, 2.5]))
        ends = [middle + (start - middle) * reach, *centres, middle + (stop - middle) * reach]
        canvas.draw.line(_scaled(np.array(ends)), fill=rod, width=rod_width)
    return _RowStyle(
        kind, colour, paint, angle, pitch, depth, width, axis, across, centres, condition,
        affected=_affected(rng, condition, count),
        highlight=float(rng.uniform(1.05, 1.45)),
        outlined=rng.random() < 0.4,
        tiers=rng.random() < 0.35,
        dull_paint=np.array(_paint(str(rng.choice(["brown", "gray", "black"])), rng), dtype=np.float32),
        dull_share=float(rng.uniform(0.45, 0.75)),
        labels={} if plain else {"kind": 1 + CHANNELS.index("element"), "colour": 1 + CHANNELS.index(colour)},
    )  # fmt: skip


def _affected(rng: np.random.Generator, condition: str | None, count: int) -> range:
    """Choose the elements that a condition shows on."""
    victim = int(rng.integers(1, count - 1)) if condition == "gap" else int(rng.integers(0, count))
    run = {"stained": int(rng.integers(1, 3)), "dull": int(rng.integers(3, count + 1))}.get(
        condition or "", 1
    )
    first = max(0, min(victim, count - run))
    return range(0) if condition in (None, "tangle") else range(first, first + run)


def _draw_element(
    canvas: _Canvas, rng: np.random.Generator, style: _RowStyle, index: int
) -> list[np.ndarray]:
    """Draw one element; return the outlines of what its condition changed."""
    condition = style.condition if index in style.affected else None
    centre = style.centres[index]
    shape = _element(style.kind, style.width, style.depth)
    fill = style.paint
    marked = []
    if condition == "gap":
        return [_turn(_element("slab", style.width, style.pitch * 0.5), style.angle) + centre]
    if condition == "odd":
        if rng.random() < 0.5:
            fill = _paint(_distinct(style.paint, rng, tuple(COLOURS)), rng)
        else:
            others = [kind for kind in ELEMENTS if kind != style.kind]
            shape = _element(str(rng.choice(others)), style.width, style.depth)
            shape = shape * float(rng.choice([0.5, 1.45]))
    if condition == "dull":
        share = style.dull_share
        fill = tuple(int(v) for v in (1 - share) * np.array(style.paint) + share * style.dull_paint)
    if condition == "broken":
        shape, lost = _broken(rng, shape, style.width)
        marked.append(_turn(lost, style.angle) + centre)
    points = _turn(shape, style.angle) + centre
    canvas.polygon(points, fill, **style.labels)
    if style.outlined:
        canvas.draw.line(_scaled(np.array([*points, points[0]])), fill=_shade(fill, 0.6), width=1)
    if condition != "broken":
        inner = shape * (0.45, 0.7) - np.array([style.depth * 0.2, style.width * 0.1])
        inner = _turn(inner, style.angle) + centre
        canvas.draw.polygon(_scaled(inner), fill=_shade(fill, style.highlight))
        if style.tiers:
            core = _turn(shape * (0.9, 0.4), style.angle) + centre
            canvas.draw.polygon(_scaled(core), fill=_shade(fill, 0.75))
    if condition in ("odd", "dull"):
        marked.append(points)
    if condition == "stained":
        marked += _draw_stains(canvas, rng, style, centre)
    return marked


def _broken(rng: np.random.Generator, shape: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Break an element's outline (N, 2) off at one side; return what is left and what is lost."""
    side = float(rng.choice([-1, 1]))
    keep = float(rng.uniform(-0.35, 0.25))  # where across the element it broke off
    ragged = side * shape[:, 1] > keep * width
    lost = shape.copy()
    lost[~ragged, 1] = side * keep * width
    left = shape.copy()
    left[ragged, 1] = side * (keep * width + rng.normal(0, 0.12 * width, ragged.sum()))
    return left, lost


def _draw_stains(
    canvas: _Canvas, rng: np.random.Generator, style: _RowStyle, centre: np.ndarray
) -> list[np.ndarray]:
    dark = _shade(_paint(str(rng.choice(["black", "brown", "black", "white"])), rng), 0.9)
    blobs = []
    for _ in range(int(rng.integers(2, 5))):
        spot = (
            centre
            + style.axis * rng.uniform(-0.7, 0.7) * style.depth
            + style.across * rng.uniform(-0.8, 0.8) * style.width
        )
        blob = _blob(spot, max(2.2, float(rng.uniform(0.3, 0.6)) * min(style.width, 9.0)), rng)
        canvas.polygon(blob, dark)
        blobs.append(blob)
    return blobs


def _draw_tangle(canvas: _Canvas, rng: np.random.Generator, centres: list[np.ndarray]) -> np.ndarray:
    """Draw a tangle of lines over a row; return its outline."""
    count = len(centres)
    centre = centres[int(rng.choice([0, count - 1, int(rng.integers(0, count))]))]
    radius = float(rng.uniform(8, 17))
    dark = _paint(str(rng.choice(["brown", "black", "gray"])), rng)
    for _ in range(int(rng.integers(25, 55))):
        a, b = rng.normal(0, radius * 0.55, (2, 2)) + centre
        line = [*(a * SCALE).tolist(), *((a + (b - a) * 0.8) * SCALE).tolist()]
        canvas.draw.line(line, fill=_shade(dark, float(rng.uniform(0.6, 1.5))), width=int(rng.integers(1, 4)))
    return _blob(centre, radius, rng) * 0.5 + centre * 0.5 + (_blob(centre, radius, rng) - centre) * 0.5


def _scaled(points: np.ndarray) -> list[tuple[float, float]]:
    """Convert scene pixels (N, 2) to the canvas's, which are finer."""
    return [(x * SCALE, y * SCALE) for x, y in points.tolist()]


def render(seed: int, index: int, *, close: bool = False, crowded: bool = False) -> Scene:
    """Scene `index` of `seed`: rows (most with a condition) or shapes.

    By default 6 of 10 are rows with every condition alike; `close` scenes are mostly rows seen from nearer,
    with more of the three conditions that only a comparison with the other elements shows. Behind most rows
    of a `crowded` scene lie shapes, which its dense labels know and its `things` do not.
    """
    rng = np.random.default_rng((seed, index))
    canvas = _Canvas(_background(rng))
    row: Row | None = None
    things: list[Thing] = []
    if rng.random() < (0.85 if close else 0.6):
        if rng.random() < 0.15:
            _draw_row(canvas, rng, None, plain=True)
        if crowded and rng.random() < 0.7:
            _draw_things(canvas, rng, int(rng.integers(1, 5)), [])
        shares = (0.26, 0.26, 0.24, 0.08, 0.08, 0.08) if close else None
        condition = str(rng.choice(CONDITIONS, p=shares)) if rng.random() < (0.8 if close else 0.7) else None
        row = _draw_row(canvas, rng, condition, close=close)
    else:
        things = _draw_things(canvas, rng, int(rng.integers(1, 5)), [])
    image = canvas.image
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.BoxBlur(float(rng.uniform(0.3, 1.6))))
    image = image.reduce(SCALE)
    if rng.random() < 0.6:
        sigma = float(rng.uniform(2, 12))
        grain = rng.integers(-128, 128, (SIZE, SIZE), dtype=np.int8).astype(np.float32) * (sigma / 74)
        image = Image.fromarray(
            np.clip(np.asarray(image, np.float32) + grain[..., None], 0, 255).astype(np.uint8)
        )
    return Scene(image, canvas.dense(), things, row)

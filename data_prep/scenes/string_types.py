"""What an insulator string is made of: outlines of its units, materials, and the defects it can have."""

from __future__ import annotations

from dataclasses import dataclass

from data_prep.scenes.chance import Chance
from data_prep.scenes.noise import Array

METAL, SHELL, STUB = 0, 1, 2

# Outlines from the cap's top (t = 0) to the next cap (t = 1): (t in pitches, radius / disc radius, material).
Outline = list[tuple[float, float, int]]
CAP_AND_PIN: Outline = [
    (0.00, 0.10, METAL),
    (0.00, 0.22, METAL),
    (0.06, 0.27, METAL),
    (0.26, 0.29, METAL),
    (0.34, 0.36, METAL),
    (0.36, 0.37, SHELL),
    (0.40, 0.58, SHELL),
    (0.46, 0.82, SHELL),
    (0.53, 0.96, SHELL),
    (0.58, 1.00, SHELL),
    (0.63, 1.00, SHELL),
    (0.65, 0.94, SHELL),
    (0.61, 0.84, SHELL),
    (0.66, 0.76, SHELL),
    (0.62, 0.66, SHELL),
    (0.66, 0.57, SHELL),
    (0.62, 0.47, SHELL),
    (0.66, 0.38, SHELL),
    (0.64, 0.22, SHELL),
    (0.66, 0.14, METAL),
    (1.00, 0.14, METAL),
]
BARE: Outline = [*CAP_AND_PIN[:5], (0.36, 0.20, METAL), (0.42, 0.14, METAL), (1.00, 0.14, METAL)]
COMPOSITE: Outline = [
    (0.00, 0.30, SHELL),
    (0.38, 0.30, SHELL),
    (0.44, 0.40, SHELL),
    (0.54, 0.97, SHELL),
    (0.58, 1.00, SHELL),
    (0.66, 1.00, SHELL),
    (0.68, 0.95, SHELL),
    (0.74, 0.34, SHELL),
    (0.76, 0.30, SHELL),
    (1.00, 0.30, SHELL),
]
COMPOSITE_BARE: Outline = [(0.00, 0.21, STUB), (1.00, 0.21, STUB)]

SHELLS: dict[str, list[tuple[float, float, float]]] = {
    "brown porcelain": [(0.33, 0.17, 0.12), (0.40, 0.22, 0.15), (0.28, 0.15, 0.12), (0.45, 0.24, 0.19)],
    "pale porcelain": [(0.86, 0.86, 0.83), (0.74, 0.76, 0.77), (0.66, 0.69, 0.71), (0.82, 0.80, 0.74)],
    "glass": [(0.34, 0.62, 0.55), (0.45, 0.66, 0.68), (0.30, 0.56, 0.66), (0.55, 0.72, 0.66)],
    "composite": [(0.56, 0.58, 0.60), (0.66, 0.67, 0.68), (0.48, 0.50, 0.54)],
}


@dataclass(frozen=True)
class StringType:
    """What a string is made of and how it faces the camera."""

    material: str  # a key of SHELLS
    colour: tuple[float, float, float]
    discs: int
    ratio: float  # disc diameter / pitch
    tilt: float  # radians between the axis and the picture plane
    caps_near: bool  # the caps' end is the near one: tops of discs show, otherwise undersides
    rust: float
    gloss: float

    @property
    def is_composite(self) -> bool:
        return self.material == "composite"

    @property
    def defect_run(self) -> int:
        """How many neighbouring sheds make a defect as large as one disc of a cap-and-pin string."""
        return max(1, round(self.discs / 5.5)) if self.is_composite else 1

    @staticmethod
    def draw(chance: Chance) -> StringType:
        material = chance.pick(list(SHELLS), (0.32, 0.24, 0.26, 0.18))
        tone = chance.uniform(0.9, 1.1)
        red, green, blue = chance.pick(SHELLS[material])
        composite = material == "composite"
        return StringType(
            material=material,
            colour=(red * tone, green * tone, blue * tone),
            discs=chance.integer(11, 16) if composite else chance.integer(5, 9),
            ratio=chance.uniform(2.3, 2.9) if composite else chance.uniform(1.5, 1.95),
            tilt=chance.uniform(0.12, 0.36) if composite else chance.uniform(0.18, 0.48),
            caps_near=chance.happens(0.5),
            rust=chance.uniform(0.3, 1.0) if chance.happens(0.35) else chance.uniform(0, 0.1),
            gloss=0.12 if composite else chance.uniform(0.5, 1.0),
        )


@dataclass(frozen=True)
class Bite:
    """A chunk off the discs `units`: within `half` radians of `angle` the skirt ends at `depth` radii."""

    units: range
    angle: float
    half: float
    depth: float
    jags: Array


@dataclass(frozen=True)
class StringDefects:
    """Drawn defects of one string. Units are counted from the arm's end."""

    missing: range = range(0)
    bite: Bite | None = None
    scorched: range = range(0)
    polluted: range = range(0)
    seed: int = 0  # of the stains' noise

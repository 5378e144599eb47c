"""What is said of a picture by the probability of yes: sound, a defect, or ask a person.

Probabilities have six decimals, as in answers files, and are compared as whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

from llava.common.records import Call

SCALE = 1_000_000
"""Steps of a probability, which are whole numbers: no rounding error moves a picture over a threshold."""


def steps(probability: float) -> int:
    return round(probability * SCALE)


@dataclass(frozen=True)
class Thresholds:
    """Holds the thresholds in steps: a picture below `sound_below` is called sound, one at `defect_from` or
    above a defect; None where nothing is called so."""

    sound_below: int | None
    defect_from: int | None

    def call(self, p_yes: float | None) -> Call:
        """Return what is said of a picture with this P(yes), or without any."""
        if p_yes is None:
            return "ask"
        if self.sound_below is not None and steps(p_yes) < self.sound_below:
            return "sound"
        return "defect" if self.defect_from is not None and steps(p_yes) >= self.defect_from else "ask"

"""Elementary functions that give the same bits on every machine.

The C library's and NumPy's own differ in their last bits with the processor (its vector units, fused
multiply-add) and the version. These are made of + - * / and square roots alone, one at a time, which
IEEE 754 rounds in one way. They are good to 1e-7, ample for a picture.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", float, NDArray[Any])

_LN2 = 0.6931471805599453

_SINE = tuple((-1) ** k / math.factorial(2 * k + 1) for k in range(7))  # sin(x) / x in powers of x squared
# arctan(x) / x on 0..1 in powers of x squared: Abramowitz and Stegun 4.4.49.
_ARCTAN = (
    1.0, -0.3333314528, 0.1999355085, -0.1420889944, 0.1065626393, -0.0752896400, 0.0429096138, -0.0161657367,
    0.0028662257,
)  # fmt: skip
_EXP = tuple(1 / math.factorial(k) for k in range(9))
_LOG = tuple(2 / (2 * k + 1) for k in range(6))  # log((1 + x) / (1 - x)) / x in powers of x squared


def _polynomial(coefficients: tuple[float, ...], x: Any) -> Any:
    """The sum of coefficients[k] * x**k, by Horner's rule."""
    total = coefficients[-1] * x
    for coefficient in coefficients[-2:0:-1]:
        total = (total + coefficient) * x
    return total + coefficients[0]


def _like(x: Any, result: Any) -> Any:
    """A float for a float, so that it does not widen the arrays that it meets."""
    return float(result) if isinstance(x, (int, float)) else result


def sine(x: Number) -> Number:
    quarters = x * (2 / math.pi) - 1.0
    fold = (abs(quarters - 4.0 * np.floor(quarters * 0.25) - 2.0) - 1.0) * (math.pi / 2)  # a triangle wave
    return _like(x, fold * _polynomial(_SINE, fold * fold))


def cosine(x: Number) -> Number:
    return sine(x + math.pi / 2)


def hypotenuse(x: Number, y: Number) -> Number:
    return _like(x, np.sqrt(x * x + y * y))


def arctan2(y: Number, x: Number) -> Number:
    """The angle of (x, y), -pi to pi."""
    wide, high = abs(x), abs(y)
    ratio = np.minimum(wide, high) / np.maximum(np.maximum(wide, high), 1e-30)
    angle = ratio * _polynomial(_ARCTAN, ratio * ratio)
    angle = np.where(high > wide, math.pi / 2 - angle, angle)
    angle = np.where(x < 0, math.pi - angle, angle)
    return _like(y, np.where(y < 0, -angle, angle))


def exponential(x: Number) -> Number:
    twos = x * (1 / _LN2)
    whole = np.floor(twos + 0.5)
    return _like(x, np.ldexp(_polynomial(_EXP, (twos - whole) * _LN2), whole.astype(np.int32)))


def logarithm(x: Number) -> Number:
    part, twos = np.frexp(x)
    small = part < 0.7071
    part, twos = np.where(small, part * 2.0, part), twos - small
    ratio = (part - 1.0) / (part + 1.0)
    return _like(x, ratio * _polynomial(_LOG, ratio * ratio) + twos * _LN2)


def power(x: Number, exponent: float) -> Number:
    """`x`, not negative, to the power `exponent`."""
    return exponential(
        exponent * logarithm(np.maximum(x, 1e-30) if isinstance(x, np.ndarray) else max(x, 1e-30))
    )

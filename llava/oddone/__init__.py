"""Which unit of an insulator string is unlike its neighbours."""

from llava.oddone.find import find_odd
from llava.oddone.result import Axis, Odd, OddResult, Unit

__all__ = ["Axis", "Odd", "OddResult", "Unit", "find_odd"]

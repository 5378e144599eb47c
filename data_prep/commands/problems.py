"""Many problems at once, told so that a person can act on them."""

from __future__ import annotations

from collections.abc import Sequence

from data_prep.report.summary import by_kind
from llava.common.html.markup import readable

FEW = 20  # problems are listed one by one
_KINDS, _EXAMPLES = 12, 3  # of more, so many kinds with so many examples each
ALL_OF_THEM = "`python -m data_prep inspect --source DIR --output FILE.html` lists every one on a page"


def problem_lines(problems: Sequence[str]) -> list[str]:
    """Lines that list the problems, those that say the same of different files together and the commonest
    kind first. Of more than `FEW` there are examples and counts."""
    kinds = sorted(by_kind(problems), key=len, reverse=True)
    whole = len(problems) <= FEW
    lines = []
    for kind in kinds if whole else kinds[:_KINDS]:
        shown = kind if whole else kind[:_EXAMPLES]
        lines += [f"problem: {readable(problem)}" for problem in shown]
        if more := len(kind) - len(shown):
            lines.append(f"  ... and {more:,} more like these")
    if not whole and len(kinds) > _KINDS:
        left = sum(map(len, kinds[_KINDS:]))
        lines.append(f"  ... and {left:,} of {len(kinds) - _KINDS} more kinds")
    return lines

"""List many problems so that a person can act on them."""

from __future__ import annotations

from collections.abc import Sequence

from data_prep.report.summary import group_similar
from llava.common.html.markup import readable

FEW = 20  # problems are listed one by one
_SHOWN_GROUPS, _SHOWN_EXAMPLES = 12, 3  # of more problems: groups of similar ones, examples of each
ALL_OF_THEM = "`python -m data_prep inspect --source DIR --output FILE.html` lists every one on a page"


def problem_lines(problems: Sequence[str]) -> list[str]:
    """Return lines that list the problems: similar ones together, the largest group first.

    Of more than `FEW` problems there are examples and counts.
    """
    groups = sorted(group_similar(problems), key=len, reverse=True)
    show_all = len(problems) <= FEW
    lines = []
    for group in groups if show_all else groups[:_SHOWN_GROUPS]:
        shown = group if show_all else group[:_SHOWN_EXAMPLES]
        lines += [f"problem: {readable(problem)}" for problem in shown]
        if more := len(group) - len(shown):
            lines.append(f"  ... and {more:,} more like these")
    if not show_all and len(groups) > _SHOWN_GROUPS:
        rest = sum(map(len, groups[_SHOWN_GROUPS:]))
        lines.append(f"  ... and {rest:,} of {len(groups) - _SHOWN_GROUPS} more kinds")
    return lines

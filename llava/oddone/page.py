"""The page that shows odd units: photo, strip, scores, neighbours, the string without its background."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.common.html.markup import Markup, table, table_row, tag, together
from llava.common.html.page import Section, callout, document, thumbnail
from llava.oddone.ask import ModelVerdict
from llava.oddone.result import OddResult

MOST_SHOWN = 40  # photos on a page, which holds all its pictures
CAPTIONS = {
    "units": "The photo: units in yellow, left out in grey, the odd one in red",
    "strip": "The string straightened and cut into its units",
    "scores": "How unlike its neighbours each unit is, in robust standard deviations; grey: left out",
    "neighbours": "The odd unit between its neighbours",
    "cut_out": "Without the background (GrabCut, which may cut away too much: for looking only)",
}
FIGURES = (("units",), ("strip", "scores"), ("neighbours",), ("cut_out",))
"""Kinds of pictures by figure: a strip and its scores stand in one, where they scroll together on a phone."""
STYLE = "figure{margin:1rem 0}.along{overflow-x:auto}.along img{display:block;min-width:60rem}"


@dataclass(frozen=True)
class Finding:
    """What was found in one photo, and the pictures of it: kind (a key of CAPTIONS) -> file."""

    photo: Path
    result: OddResult
    pictures: dict[str, Path]
    verdict: ModelVerdict | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the photo's row of oddone.json."""
        row = {"photo": str(self.photo), **self.result.to_json()}
        return row | ({"model": self.verdict.to_json()} if self.verdict else {})

    @property
    def sentence(self) -> str:
        """What was found, in a sentence."""
        odd = self.result.odd
        if odd is None:
            return " ".join(self.result.warnings) or "No unit stands out."
        where = f"unit {odd.index + 1} of {len(self.result.units)}"
        facts = f"score {odd.score:.1f}, {odd.gap:.1f} above the next"
        if odd.sure:
            return f"Odd: {where} ({facts}). It stands out clearly."
        return (
            f"Most unlike its neighbours: {where} ({facts}). It does not stand out: the string may be sound."
        )


def render_page(findings: Sequence[Finding], problems: Mapping[Path, str]) -> str:
    """Return the whole page; of several photos those whose odd unit stands out come first.

    Args:
        findings: What was found in each photo.
        problems: Why the photos that are left out could not be looked at.
    """
    ordered = sorted(findings, key=_order)
    sections: list[Section] = []
    if len(findings) > 1:
        sections.append(("All photos", "all", _overview(ordered)))
    if problems:
        rows = [table_row(str(photo), problem) for photo, problem in problems.items()]
        left_out = table("Photos that could not be looked at.", ["photo", "why"], rows)
        sections.append(("Left out", "left-out", left_out))
    for number, finding in enumerate(ordered[:MOST_SHOWN]):
        sections.append((finding.photo.name, f"photo-{number}", _photo(finding)))
    sure = sum(bool(finding.result.odd and finding.result.odd.sure) for finding in findings)
    note = (
        "A unit is compared with its neighbours in the same photo. That it is unlike them does not say why: "
        "a missing or broken disc, dirt, a fitting or something behind the string. Somebody should look."
    )
    header = [
        tag(
            "p",
            f"Photos: {len(findings)}, with a unit that clearly stands out: {sure}. ",
            tag("span", note, class_="soft"),
        )
    ]
    return document("The odd one out", header, sections, style=STYLE)


def _order(finding: Finding) -> tuple[bool, float]:
    odd = finding.result.odd
    return (not (odd and odd.sure), -(odd.gap if odd else -1.0))


def _overview(findings: Sequence[Finding]) -> Markup:
    rows = [table_row(str(finding.photo), finding.sentence) for finding in findings]
    more = f" Pictures of the first {MOST_SHOWN} are below." if len(findings) > MOST_SHOWN else ""
    return table("Those whose odd unit stands out first." + more, ["photo", "what was found"], rows)


def _photo(finding: Finding) -> Markup:
    return together(
        [
            tag("p", str(finding.photo), class_="soft"),
            tag("p", finding.sentence),
            callout(finding.result.warnings) if finding.result.warnings else None,
            _verdict(finding) if finding.verdict else None,
            *(_figure(finding, kinds) for kinds in FIGURES if set(kinds) <= finding.pictures.keys()),
        ]
    )


def _figure(finding: Finding, kinds: Sequence[str]) -> Markup:
    images = [
        tag("img", src=thumbnail(finding.pictures[kind], 1600), alt=CAPTIONS[kind], loading="lazy")
        for kind in kinds
    ]
    return tag(
        "figure",
        tag("div", *images, class_="picture along" if len(kinds) > 1 else "picture"),
        tag("figcaption", ". ".join(CAPTIONS[kind] for kind in kinds)),
    )


def _verdict(finding: Finding) -> Markup | None:
    verdict, odd = finding.verdict, finding.result.odd
    if verdict is None:
        return None
    agrees = "the same unit" if odd and odd.index == verdict.index else "another unit"
    rows = [
        table_row(f"unit {index + 1}", f"{finding.result.units[index].score:.1f}", f"{p_yes:.2f}")
        for index, p_yes in verdict.p_yes.items()
    ]
    said = (
        f"The model, shown the numbered strip, names unit {verdict.index + 1} "
        f"(probability {verdict.probability:.2f}): {agrees}."
    )
    return together(
        [
            tag("p", said),
            table("The doubtful units, one by one.", ["unit", "score", "model: broken or missing"], rows),
        ]
    )

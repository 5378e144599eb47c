"""register.html: a page to work through the findings of a survey, by keyboard, mouse or finger.

It is complete without its script, which filters, sorts and keeps what a person says of each finding.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from eval.report.phrases import percent
from eval.survey.cards import DECISIONS, findings_part
from eval.survey.findings import Finding, Findings
from eval.survey.plan import draw_plan
from llava.common.files import atomic_folder, write_text
from llava.common.html.markup import (
    Markup,
    cut,
    first_of,
    number_cell,
    number_head,
    table,
    table_row,
    tag,
    together,
)
from llava.common.html.page import Section, callout, document, read_asset
from llava.common.records import Call
from llava.common.remote import address_of

MAX_EMBEDDED = 8_000_000  # bytes of small pictures; more lie beside the page
THUMBNAILS = "thumbnails"
_MAX_ROWS = 25  # of a table of the summary
_MAX_SUREST = 12


def write_register(
    output: Path,
    register: Findings,
    photos: Mapping[str, Path],
    thumbnails: Mapping[str, bytes],
    destination: Path | None = None,
) -> None:
    """Write register.html to the folder `output`, and the small pictures beside it if they are many.

    Args:
        output: The folder that it is written to.
        register: What it shows.
        photos: The path of each photo by its name, to which the page links.
        thumbnails: A JPEG of each photo that can be shown, by name.
        destination: Where the page will lie, if elsewhere.
    """
    shown = {
        finding.photo: thumbnails[finding.photo]
        for finding in register.findings
        if thumbnails.get(finding.photo)
    }
    beside = sum(map(len, shown.values())) > MAX_EMBEDDED
    if beside:
        addresses = {name: f"{THUMBNAILS}/{number:05d}.jpg" for number, name in enumerate(shown)}
        with atomic_folder(output / THUMBNAILS, overwrite=True) as folder:
            for name, address in addresses.items():
                (folder / Path(address).name).write_bytes(shown[name])
    else:
        addresses = {
            name: f"data:image/jpeg;base64,{b64encode(data).decode()}" for name, data in shown.items()
        }
    links = {name: _link(path, destination or output) for name, path in photos.items()}
    write_text(output / "register.html", _page(register, addresses, links))


def _link(photo: Path, folder: Path) -> str:
    """Return a link to a photo from a page in a folder; one between two places is the photo's address, which
    a browser may not be able to open."""
    places = [None if address_of(path) is None else path.parts[:2] for path in (photo, folder)]
    if places[0] == places[1]:
        return quote(os.path.relpath(photo, folder))
    return quote(address_of(photo) or photo.absolute().as_uri(), safe="/:%")


def _page(register: Findings, addresses: Mapping[str, str], links: Mapping[str, str]) -> str:
    plan = draw_plan(register.findings)
    sections: list[Section] = [("Summary", "summary", _summary(register))]
    if plan is not None:
        sections.append(("Where", "where", tag("figure", plan, _legend())))
    sections.append(("Findings", "findings", findings_part(register, addresses, links)))
    return document(
        "Survey",
        [_facts(register), _guarantee(register)],
        sections,
        style=read_asset("eval.survey", "register.css"),
        script="".join(read_asset("eval.survey", name) for name in ("large.js", "register.js")),
        images_beside=True,  # the photos, where a box is drawn
    )


def _facts(register: Findings) -> Markup:
    photos = {name for finding in register.findings for name in finding.photos}
    times = sorted(finding.time for finding in register.findings if finding.time)
    days = list(dict.fromkeys((times[0][:10], times[-1][:10]))) if times else []
    facts = {
        "photos": f"{len(photos):,}",
        **{name: f"{_of(register, decision):,}" for decision, name in _HEADINGS.items()},
        "taken": " to ".join(days),
        "model": register.model_id,
        "recipe": register.recipe,
    }
    return tag(
        "dl",
        *(tag("div", tag("dt", name), tag("dd", value)) for name, value in facts.items() if value),
        class_="facts",
    )


_HEADINGS: Mapping[Call, str] = {
    "defect": "findings of a defect",
    "ask": "for a person",
    "sound": "sound",
}


def _of(register: Findings, decision: Call) -> int:
    return sum(finding.decision == decision for finding in register.findings)


def _guarantee(register: Findings) -> Markup:
    certified = tag("p", tag("b", register.certified)) if register.certified else None
    return together([certified, callout(register.warnings) if register.warnings else None])


def _summary(register: Findings) -> Markup:
    """Return what fits on a page: findings by folder and kind, and the surest defects."""
    by_folder: dict[str, Counter[str]] = {}
    by_kind: dict[str, Counter[str]] = {}
    for finding in register.findings:
        by_folder.setdefault(finding.asset or "(the folder itself)", Counter())[finding.decision] += 1
        if finding.kind:
            by_kind.setdefault(finding.kind, Counter())[finding.decision] += 1
    defects = [finding for finding in register.findings if finding.decision == "defect"]
    return together(
        [
            tag("p", id="progress", class_="soft"),
            _counts("folder", by_folder, ("defect", "ask", "sound")),
            _counts("kind", by_kind, ("defect", "ask")) if by_kind else None,
            _surest(defects) if defects else None,
        ]
    )


def _counts(what: str, counts: Mapping[str, Counter[str]], decisions: Sequence[Call]) -> Markup:
    """Return a table of the findings by folder or kind, those with most defects first."""
    worst = sorted(counts.items(), key=lambda item: (*(-item[1][name] for name in decisions), item[0]))
    rows = [
        table_row(cut(name, 120), *(number_cell(of[decision]) for decision in decisions))
        for name, of in worst[:_MAX_ROWS]
    ]
    caption = f"Findings by {what}." + first_of(len(rows), len(worst))
    return table(caption, [what, *(number_head(DECISIONS[name]) for name in decisions)], rows)


def _surest(defects: Sequence[Finding]) -> Markup:
    ordered = sorted(defects, key=lambda finding: -(finding.p_yes or 0.0))[:_MAX_SUREST]
    rows = [
        table_row(
            tag("a", cut(finding.photo, 120), href=f"#f-{finding.id}"),
            finding.kind or "",
            finding.place or "",
            number_cell("" if finding.p_yes is None else percent(finding.p_yes)),
        )
        for finding in ordered
    ]
    caption = "The surest defects." + first_of(len(rows), len(defects))
    return table(caption, ["photo", "kind", "place", number_head("probability")], rows)


def _legend() -> Markup:
    keys = [
        tag("span", tag("i", class_=f"dot {decision}"), words, class_="key")
        for decision, words in DECISIONS.items()
    ]
    return tag("figcaption", *keys)

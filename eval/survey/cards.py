"""The cards of register.html, a finding each, with what filters them and takes down what a person says."""

from __future__ import annotations

from collections.abc import Mapping

from eval.report.phrases import counted, percent
from eval.report.pictures import DrawnBox, picture
from eval.survey.findings import Finding, Findings
from eval.survey.novelty_map import draw_novelty_maps
from eval.survey.sightings import DEFECT
from llava.common.files import to_json
from llava.common.html.markup import Markup, cut, tag, together

DECISIONS: Mapping[str, str] = {"defect": "defect", "ask": "ask a person", "sound": "sound"}
_TEXT = 600  # characters of a report or a problem
_MAX_OTHERS = 20  # photos that a card names beside its own
_ORDERS = {"unsure": "surest sound first", "time": "by time", "folder": "as in the folder"}
# The keys of register.js: what each does, and the sign on its button where that is no word.
_ACTIONS = {
    "k": ("previous", "◀"),
    "j": ("next", "▶"),
    "a": ("accept", ""),
    "r": ("reject", ""),
    "c": ("correct", ""),
    "b": ("box", ""),
    "m": ("map", ""),
    "n": ("note", ""),
    "u": ("undo", ""),
}
_LARGE_ACTIONS = {"x": "remove the box", "Escape": "close"}


def findings_part(register: Findings, addresses: Mapping[str, str], links: Mapping[str, str]) -> Markup:
    """Return the filter, a card per finding, and what acts on the current one: a bar, and its photo, large.

    Args:
        register: What is shown.
        addresses: Of the small picture of each photo that can be shown, by the photo's name.
        links: Of each photo itself, by name.
    """
    cards = [_card(finding, addresses.get(finding.photo, ""), links) for finding in register.findings]
    return together(
        [
            _filter(register),
            _keeping(),
            tag(
                "div",
                *cards,
                class_="cards",
                id="cards",
                data_survey=register.survey,
                data_photos_folder=register.photos_folder,
            ),
            tag("div", _large(), _bar(register), id="foot", hidden=""),
        ]
    )


def _filter(register: Findings) -> Markup:
    findings = register.findings
    kinds = sorted({finding.kind for finding in findings if finding.kind})
    folders = sorted({finding.asset for finding in findings if finding.asset})
    words = tag("input", type="search", name="words", placeholder="in names, kinds, reports")
    fields = [
        _select("Decision", "decision", DECISIONS),
        _select("Kind", "kind", {kind: kind for kind in kinds}) if kinds else None,
        _select("Folder", "folder", {folder: folder for folder in folders}) if folders else None,
        _select("Looked at", "state", {"open": "not yet", "done": "yes"}),
        _select("Order", "order", _ORDERS, first="surest defect first"),
        tag("label", "Words", words),
        tag("button", "Show all", type="reset"),
        tag("output", id="count", class_="soft", aria_live="polite"),
    ]
    return tag("form", *fields, id="filter", class_="filter", hidden="", aria_label="Filter the findings")


def _select(label: str, name: str, options: Mapping[str, str], first: str = "all") -> Markup:
    made = [tag("option", cut(words, 60), value=value) for value, words in {"": first, **options}.items()]
    return tag("label", label, tag("select", *made, name=name))


def _keeping() -> Markup:
    """Return what saves and loads that which a person says."""
    load = tag("input", type="file", id="load", accept=".json,application/json")
    return tag(
        "p",
        tag("button", "Save corrections", type="button", id="save"),
        tag("label", "Load corrections", load, class_="button"),
        tag("span", id="saved", class_="soft", aria_live="polite"),
        id="keep",
        hidden="",
    )


def _bar(register: Findings) -> Markup:
    """Return the bar at the foot of the window, which acts on the current finding."""
    has_maps = any(finding.novelty_maps for finding in register.findings)
    buttons = [_button(key, name, sign) for key, (name, sign) in _ACTIONS.items() if key != "m" or has_maps]
    kinds = [tag("option", kind, value=kind) for kind in register.kinds]
    kind = tag("select", tag("option", "choose a kind", value=""), *kinds, id="kind")
    return tag(
        "div",
        tag("p", id="prompt", hidden="", role="status"),
        tag("div", *buttons),
        tag(
            "div",
            tag("label", "It is ", kind),
            tag("label", "Note ", tag("input", type="text", id="note", maxlength=500)),
        ),
        id="bar",
        role="toolbar",
        aria_label="Say what it is",
    )


def _large() -> Markup:
    """Return the place for the current photo above the bar, as large as the window, to draw a box on."""
    buttons = [_button(key, name, id="unbox" if key == "x" else None) for key, name in _LARGE_ACTIONS.items()]
    return tag(
        "div",
        tag("div", tag("div", class_="picture"), class_="stage"),
        tag("div", tag("span", id="hint", role="status"), *buttons, class_="below"),
        id="large",
        hidden="",
        role="region",
        aria_label="The photo, large",
    )


def _button(key: str, name: str, sign: str = "", id: str | None = None) -> Markup:
    shown = "esc" if key == "Escape" else key
    return tag(
        "button", sign or name.capitalize(), tag("kbd", shown), type="button", id=id, data_key=key,
        title=f"{name} ({shown})", aria_label=name,
    )  # fmt: skip


def _card(finding: Finding, address: str, links: Mapping[str, str]) -> Markup:
    boxes = [] if finding.box is None else [DrawnBox("found", finding.box, finding.kind or finding.about)]
    name = cut(finding.photo, 200)
    novelty = [drawn] if (drawn := draw_novelty_maps(finding.novelty_maps)) else []
    shown = (
        picture(
            address, f"Photo {name}" + (" with the box of what was found" if boxes else ""), boxes, novelty
        )
        if address
        else tag("div", tag("p", "This photo cannot be shown."), class_="picture")
    )
    badge = tag("span", DECISIONS[finding.decision], class_=f"badge {finding.decision}")
    return tag(
        "figure",
        shown,
        tag(
            "figcaption",
            tag("h3", badge, " ", cut(finding.kind or finding.reason or "", 100)),
            tag("p", _photo_link(finding.photo, links)),
            *(tag("p", line, class_="soft") for line in _lines(finding)),
            _others(finding, links),
            tag("p", class_="verdict", hidden=""),
        ),
        id=f"f-{finding.id}",
        data_id=finding.id,
        data_photo=finding.photo,
        data_decision=finding.decision,
        data_kind=finding.kind or "",
        data_folder=finding.asset,
        data_time=finding.time or "",
        data_box=None if finding.box is None else to_json(finding.box),
        data_more=to_json(finding.photos[1:]),
        data_p="" if finding.p_yes is None else f"{finding.p_yes:.6f}",
        tabindex="-1",
    )  # fmt: skip


def _lines(finding: Finding) -> list[str]:
    """Return what is known of a finding besides its kind, in lines."""
    asks = finding.decision == "ask"
    position = ""
    if finding.latitude is not None and finding.longitude is not None:
        position = f"{finding.latitude:.6f}, {finding.longitude:.6f}"
    lines: list[list[str | None]] = [
        [
            finding.reason if asks and finding.kind else None,
            _likely("a defect" if finding.about == DEFECT else finding.about, finding.p_yes),
            _likely("of this kind", finding.kind_probability),
            _likely("sound pictures as unlike what is known", finding.novelty),
        ],
        [
            f"where: {finding.place}" if finding.place else None,
            f"counted: {finding.count:,}" if finding.count and finding.decision != "sound" else None,
        ],
        [finding.time.replace("T", " ") if finding.time else None, position],
        [cut(finding.report or "", _TEXT)],
        [cut(finding.problem or "", _TEXT)],
    ]
    joined = (", ".join(part for part in line if part) for line in lines)
    return [line for line in joined if line]


def _likely(what: str, probability: float | None) -> str | None:
    return None if probability is None else f"{what}: {percent(probability)}"


def _others(finding: Finding, links: Mapping[str, str]) -> Markup | None:
    """Return the further photos that show the same, folded."""
    others = finding.photos[1:]
    if not others:
        return None
    items = [tag("li", _photo_link(name, links)) for name in others[:_MAX_OTHERS]]
    if left := len(others) - len(items):
        items.append(tag("li", f"and {counted(left, 'more photo')}"))
    heading = tag("summary", f"the same in {counted(len(others), 'more photo')}")
    return tag("details", heading, tag("ul", *items, class_="lines"))


def _photo_link(name: str, links: Mapping[str, str]) -> Markup:
    return tag("a", cut(name, 200), href=links[name], target="_blank", rel="noopener")

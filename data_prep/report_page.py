"""A report as one HTML page that needs nothing beside itself: no script, no network, pictures inside.

Names of files and classes are foreign text. All of it passes through `tag` (data_prep/markup.py), which
escapes every child and attribute that was not itself made by `tag`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median

from data_prep.markup import (
    Markup,
    bar_cell,
    number_cell,
    number_head,
    strip,
    table,
    table_row,
    tag,
    together,
)
from data_prep.report import (
    BOUNDS,
    ROLES,
    SHOWN_LINES,
    THIN_SHARE,
    Answers,
    Lines,
    Report,
    Sample,
    Sizes,
    Twin,
    Twins,
)
from data_prep.report_style import STYLE
from llava.records import IMAGE_PLACEHOLDER

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_TURNS = 4  # of one conversation
_BOXES = 200  # drawn on one sample
_TEXT = 400  # characters of a question or an answer
_COLOURS = ("#ff4d4f", "#18b6f6", "#ffc233", "#3ecf6e", "#c77dff", "#ff8a3d", "#5b8cff", "#f06ab8")
_PARTS = ("first", "second", "third", "fourth")  # looks of the parts of a bar of answers
_FEW_ANSWERS = 12
_SIZES = 8  # sizes of pictures listed one by one
_CLASSES = 60  # rows of a table of classes


def page(report: Report) -> str:
    """The whole page."""
    sections = [
        (name, anchor, body)
        for name, anchor, body in (
            ("Splits", "splits", _splits(report)),
            ("Class names", "mapping", _mapping(report)),
            ("Classes", "classes", _classes(report)),
            ("Sizes", "sizes", _sizes(report)),
            ("Answers", "answers", _answers(report)),
            ("Near-twins", "twins", _twins(report.twins)),
            ("Samples", "samples", _samples(report)),
            ("Left out and put right", "notes", _notes(report.notes)),
        )
        if body
    ]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", report.title),
        tag("style", Markup(STYLE)),
    )
    facts = [tag("div", tag("dt", name), tag("dd", value)) for name, value in report.facts]
    body = tag(
        "body",
        tag("header", tag("h1", report.title), tag("dl", *facts, class_="facts"), _first(report.warnings)),
        tag("nav", *(tag("a", name, href=f"#{anchor}") for name, anchor, _ in sections)),
        tag(
            "main",
            *(tag("section", tag("h2", name), body, id=anchor) for name, anchor, body in sections),
        ),
        tag("footer", "Made by LLaVA Inspect. This page holds all its pictures and loads nothing."),
    )
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def _first(warnings: Sequence[str]) -> Markup:
    if not warnings:
        return tag("div", tag("p", "Nothing that asks for attention was found."), class_="attention fine")
    return tag(
        "div",
        tag("h2", "Look at this first"),
        tag("ul", *(tag("li", line) for line in warnings)),
        class_="attention",
    )


def _mapping(report: Report) -> Markup | None:
    if not report.mapping:
        return None
    rows = [
        table_row(name, tag("td", fate, class_="warn" if fate.startswith("unknown") else None))
        for name, fate in report.mapping[:_CLASSES]
    ]
    caption = "Class names as the annotations write them, and what the recipe makes of them."
    return table(caption + _first_of(len(rows), len(report.mapping)), ["written", "taken as"], rows)


def _first_of(shown: int, total: int) -> str:
    return f" First {shown:,} of {total:,}." if shown < total else ""


def _splits(report: Report) -> Markup | None:
    if not report.split_counts:
        return None
    columns = next(iter(report.split_counts.values()))
    rows = [
        table_row(split, *(number_cell(count) for count in counts.values()))
        for split, counts in report.split_counts.items()
    ]
    return table("A group is never divided.", ["split", *map(number_head, columns)], rows)


def _classes(report: Report) -> Markup | None:
    if not report.classes and not report.kinds:
        return None
    splits = [split for split in report.splits if _has(report, split)]
    parts = []
    if report.kinds:
        parts.append(_kinds(report, splits))
    if report.classes:
        parts.append(_class_table(report, splits))
    return together(parts)


def _has(report: Report, split: str) -> bool:
    return any(row.views[split] for row in report.classes) or bool(report.kinds.get(split))


def _kinds(report: Report, splits: Sequence[str]) -> Markup:
    """A row per label and a column per split: shares that should be alike stand side by side."""
    parts = {split: report.kinds.get(split, Counter()) for split in splits}
    names = sorted({name for part in parts.values() for name in part})
    most = max(count / part.total() for part in parts.values() for count in part.values())
    rows = []
    for name in names[:_CLASSES]:
        cells = []
        for part in parts.values():
            share = part[name] / max(1, part.total())
            said = tag("div", f"{part[name]:,} ", tag("span", f"{share:.0%}", class_="soft"))
            cells.append(tag("td", said, strip([("first", share / most)]), class_="share"))
        rows.append(table_row(name, *cells))
    heads = [
        f"{split or f'{report.unit}s'} ({part.total():,})" if len(parts) > 1 else f"{report.unit}s"
        for split, part in parts.items()
    ]
    caption = f"What each {report.unit} shows: its largest defect" + (", by split." if any(splits) else ".")
    return table(caption + _first_of(min(len(names), _CLASSES), len(names)), ["shows", *heads], rows)


def _class_table(report: Report, splits: Sequence[str]) -> Markup:
    most = max(row.boxes.total() for row in report.classes)
    several = list(splits) if len(splits) > 1 else []
    with_roles = any(row.role != "box" for row in report.classes)
    rows = [
        table_row(
            row.name,
            *([row.role] if with_roles else []),
            *(number_cell(row.boxes[split]) for split in several),
            number_cell(row.boxes.total()),
            number_cell(row.views.total()),
            bar_cell(row.boxes.total() / most),
        )
        for row in report.classes[:_CLASSES]
    ]
    return table(
        "Annotated objects (boxes, or labels of whole pictures) by class."
        + _first_of(len(rows), len(report.classes)),
        [
            "class",
            *(["is a"] if with_roles else []),
            *(number_head(f"in {split or 'no split'}") for split in several),
            number_head("objects"),
            number_head(f"{report.unit}s with it"),
            "",
        ],
        rows,
    )


def _sizes(report: Report) -> Markup | None:
    if not report.picture_sizes:
        return None
    parts = [_picture_sizes(report)]
    for size in report.sizes:
        heading, body = _box_sizes(size, report.unit)
        if size.role == "component":  # where they are is seldom the question: folded away
            parts.append(tag("details", tag("summary", heading), body))
        else:
            parts += [tag("h3", heading), body]
    return together(parts)


def _picture_sizes(report: Report) -> Markup:
    total, unit = report.picture_sizes.total(), report.unit
    sizes = list(report.picture_sizes.elements())
    if len(report.picture_sizes) > _SIZES:
        longer, shorter = [max(size) for size in sizes], [min(size) for size in sizes]
        return tag(
            "p",
            f"The {unit}s have {len(report.picture_sizes):,} different sizes. Longer side: {min(longer):,} "
            f"to {max(longer):,} pixels, median {median(longer):,.0f}; shorter side: {min(shorter):,} to "
            f"{max(shorter):,}, median {median(shorter):,.0f}.",
        )
    rows = [
        table_row(
            f"{width} x {height}",
            number_cell(count),
            number_cell(f"{count / total:.0%}"),
            bar_cell(count / total),
        )
        for (width, height), count in sorted(
            report.picture_sizes.items(), key=lambda item: (-item[1], item[0])
        )
    ]
    caption = f"Sizes of the {unit}s in pixels (width x height)."
    return table(caption, ["size", number_head(f"{unit}s"), number_head("share"), ""], rows)


def _box_sizes(sizes: Sizes, unit: str) -> tuple[str, Markup]:
    """A heading and what goes below it."""
    eye = sizes.eye
    noun = {"defect": "defects", "component": "components", "box": "boxes"}[sizes.role]
    edges = [0.0, *(bound * eye.patch for bound in BOUNDS)]
    most = max(sizes.bins)
    filled = [number for number, count in enumerate(sizes.bins) if count]
    at_one = BOUNDS.index(1.0)  # the bin below one patch; it and the next are always shown
    shown = range(min(at_one, *filled), max(at_one + 1, *filled) + 1)
    rows = []
    for number, count in enumerate(sizes.bins):
        if number not in shown:
            continue
        last = number == len(BOUNDS)
        label = f"{edges[number]:g} and more" if last else f"{edges[number]:g} to {edges[number + 1]:g}"
        thin = not last and edges[number + 1] <= eye.patch
        at_patch = not last and edges[number + 1] == eye.patch
        rows.append(
            table_row(
                label,
                number_cell(count),
                number_cell(f"{count / sizes.count:.0%}"),
                bar_cell(count / most, "thin" if thin else "first"),
                class_="patch" if at_patch else None,
            )
        )
    caption = (
        f"The shorter side of {sizes.count:,} {noun} in model pixels. The dashed line is one patch: what "
        f"lies above it in the table is thinner."
    )
    histogram = table(caption, ["model pixels", number_head(noun), number_head("share"), ""], rows)
    class_rows = [
        table_row(
            name,
            number_cell(count),
            number_cell(f"{middle:.1f}"),
            number_cell(
                f"{thin:,} ({thin / count:.0%})",
                "warn" if thin >= THIN_SHARE * count and thin and sizes.role != "component" else "",
            ),
        )
        for name, count, middle, thin in sizes.classes[:_CLASSES]
    ]
    by_class = table(
        f"The same by class.{_first_of(len(class_rows), len(sizes.classes))}",
        [
            "class",
            number_head(noun),
            number_head("median, model pixels"),
            number_head("thinner than a patch"),
        ],
        class_rows,
    )
    heading = (
        f"{noun.capitalize()} as {eye.name} sees them: {unit} padded to a square of {eye.side} pixels, "
        f"patch {eye.patch}"
    )
    return heading, together([histogram, by_class])


def _answers(report: Report) -> Markup | None:
    if not report.answers:
        return None
    several = len({part.language for part in report.answers}) > 1
    rows = []
    for task, language in dict.fromkeys((part.task, part.language) for part in report.answers):
        parts = [part for part in report.answers if (part.task, part.language) == (task, language)]
        overall = sum((part.answers for part in parts), Counter())
        looks: dict[str, str] = {}
        if len(overall) <= _FEW_ANSWERS:  # no use in naming a few of hundreds
            ordered = sorted(overall, key=lambda word: (-overall[word], word))
            looks = dict(zip(ordered, _PARTS, strict=False))
        for number, part in enumerate(parts):
            answer, share = part.commonest or ("", 0.0)
            name = f"{task} ({language})" if several and language else task
            rows.append(
                tag(
                    "tr",
                    tag("th", name, scope="rowgroup", rowspan=len(parts)) if number == 0 else None,
                    tag("td", part.split),
                    number_cell(part.count or f"{part.turns:,} turns"),
                    number_cell(part.different),
                    tag("td", _cut(answer, 60)),
                    number_cell(f"{share:.0%}" if share else ""),
                    _answer_bar(part, looks),
                )
            )
    intro = tag(
        "p",
        "The commonest answer is the baseline: what a model scores that always says it. A model that scores "
        "near it has learned nothing about the pictures.",
    )
    columns = [
        "task",
        "split",
        number_head("questions"),
        number_head("different answers"),
        "commonest",
        number_head("its share"),
        "",
    ]
    return together([intro, table("Answers by task and split.", columns, rows)])


def _answer_bar(part: Answers, looks: dict[str, str]) -> Markup:
    """The shares of the answers that have a look, in its order."""
    shares = {answer: part.answers[answer] / part.count for answer in looks if part.answers[answer]}
    if not shares:
        return tag("td", class_="wide answers")
    keys = [
        tag(
            "span",
            tag("i", class_=f"swatch {looks[answer]}"),
            f"{_cut(answer, 24)} {share:.0%}",
            class_="key",
        )
        for answer, share in shares.items()
    ]
    if len(part.answers) > len(shares):
        keys.append(tag("span", f"{len(part.answers) - len(shares)} more", class_="key"))
    shown = strip((looks[answer], share) for answer, share in shares.items())
    return tag("td", shown, tag("div", *keys, class_="soft"), class_="wide answers")


def _twins(twins: Twins | None) -> Markup | None:
    if twins is None:
        return None
    leaks = twins.leaks
    if not twins.pairs:
        lines = [f"No two pictures differ in {twins.within} or fewer of the 256 bits of their hashes."]
    else:
        lines = [
            f"{twins.pairs:,} pair(s) of pictures, {twins.pictures:,} pictures in all, differ in "
            f"{twins.within} or fewer of the 256 bits of their perceptual hashes. A model that is trained on "
            f"one and tested on the other remembers instead of looking."
        ]
    others = leaks is not None and leaks.akin > leaks.twins
    if leaks and others:
        lines.append(f"{leaks.akin:,} pairs of pictures are in one group, for this or another reason.")
    if leaks and leaks.akin:
        near = f" ({leaks.random_twins:,g} of near-twins)" if others else ""
        lines.append(
            f"A naive split, picture by picture at random, would divide about {leaks.random_akin:,g} of "
            f"these pairs{near}."
        )
    if leaks and leaks.given_akin is not None:
        lines.append(
            f"The splits that the source itself states divide {leaks.given_akin:,} of these pairs "
            f"({leaks.given_twins or 0:,} of near-twins)."
        )
    if twins.crossing is not None and twins.pairs:
        lines.append(f"As the pictures are split here, {twins.crossing or 'none'} of the pairs are divided.")
    parts = [tag("p", line) for line in lines]
    if twins.pairs > len(twins.shown):
        parts.append(tag("p", f"First {len(twins.shown)} of {twins.pairs:,} pairs.", class_="soft"))
    return together([*parts, tag("div", *(_pair(twin) for twin in twins.shown), class_="cards")])


def _pair(twin: Twin) -> Markup:
    one, two = twin.first, twin.second
    if twin.crossing:
        state = tag("span", f"on two sides: {one.split} and {two.split}", class_="warn")
    elif one.split and two.split:
        state = tag("span", f"both in {one.split}", class_="ok")
    elif one.split or two.split:
        state = tag("span", f"one in {one.split or two.split}, the other left out", class_="ok")
    else:
        state = None
    stills = [_still(data, seen.name) for data, seen in zip(twin.pictures, (one, two), strict=True)]
    return tag(
        "figure",
        tag("div", *stills, class_="pair"),
        tag(
            "figcaption",
            tag("b", f"{twin.distance} of 256 bits differ"),
            "; " if state else None,
            state,
            tag("div", one.name),
            tag("div", two.name),
        ),
    )


def _still(data: str, name: str) -> Markup:
    shown = tag("img", src=data, alt=f"Picture {name}") if data else tag("p", "cannot be read")
    return tag("div", shown, class_="picture")


def _samples(report: Report) -> Markup | None:
    if not report.samples:
        return None
    colours = _colours(report)
    about = (
        f"{len(report.samples)} of {report.view_count:,} {report.unit}s that show every split and class, as "
        f"large as the model sees them: what you cannot make out here, it cannot either."
    )
    return together(
        [
            tag("p", about),
            tag("div", *(_sample(sample, colours) for sample in report.samples), class_="cards"),
        ]
    )


def _colours(report: Report) -> dict[str, str]:
    """Red first, for defects, and where nothing says what is one, for the rarest class."""
    rows = sorted(report.classes, key=lambda row: (ROLES.index(row.role), row.boxes.total(), row.name))
    return {row.name: _COLOURS[number % len(_COLOURS)] for number, row in enumerate(rows)}


def _sample(sample: Sample, colours: dict[str, str]) -> Markup:
    view = sample.view
    boxes = Counter(shape.name for shape in view.shapes)
    keys = [
        tag(
            "span",
            tag("i", class_="swatch", style=f"background:{colours[name]}"),
            f"{name} ({count})" if count > 1 else name,
            class_="key",
        )
        for name, count in sorted(boxes.items())
    ]
    labels = [tag("span", f"labelled {name}", class_="key") for name in view.labels]
    if not keys and not labels:
        keys = [tag("span", "nothing annotated", class_="key")]
    said = ", ".join(f"{count} {name}" for name, count in sorted(boxes.items())) or "no boxes"
    split = [tag("span", view.split, class_="tag"), " "] if view.split else []
    picture = [
        tag("img", src=sample.picture, alt=f"{view.name} with {said}"),
        _outlines(sample, colours),
    ]
    return tag(
        "figure",
        tag("div", *(picture if sample.picture else [tag("p", "cannot be read")]), class_="picture"),
        tag("figcaption", *split, tag("b", view.name), tag("div", *keys, *labels)),
        _talk(sample),
    )


def _outlines(sample: Sample, colours: dict[str, str]) -> Markup:
    """The boxes over the picture, each a dark line under a bright one, to be seen on any ground."""
    width, height = sample.view.size
    rectangles = []
    for shape in sample.view.shapes[:_BOXES]:
        x1, y1, x2, y2 = shape.box
        place = {"x": f"{x1:.1f}", "y": f"{y1:.1f}", "width": f"{x2 - x1:.1f}", "height": f"{y2 - y1:.1f}"}
        rectangles.append(tag("rect", class_="under", **place))
        rectangles.append(tag("rect", tag("title", shape.name), stroke=colours[shape.name], **place))
    return tag(
        "svg",
        *rectangles,
        viewBox=f"0 0 {width:g} {height:g}",
        preserveAspectRatio="none",
        aria_hidden="true",
    )


def _talk(sample: Sample) -> Markup | None:
    if not sample.talks:
        return None
    lines = []
    for talk in sample.talks:
        for number, (question, answer) in enumerate(talk.turns[:_TURNS]):
            chip = tag("span", talk.task if number == 0 else "then", class_="tag")
            asked = question.replace(IMAGE_PLACEHOLDER, "").strip()
            lines.append(tag("dt", chip, " ", _cut(asked, _TEXT)))
            lines.append(tag("dd", _cut(answer, _TEXT)))
    if sample.more:
        lines.append(tag("dt", f"and {sample.more:,} more", class_="soft"))
    return tag("dl", *lines, class_="talk")


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def _notes(notes: Sequence[Lines]) -> Markup | None:
    parts = []
    for part in notes:
        if part.lines:
            listed = [tag("li", _cut(line, _TEXT)) for line in part.lines[:SHOWN_LINES]]
            about = part.about + _first_of(len(listed), len(part.lines))
            parts.append(tag("h3", f"{part.heading} ({len(part.lines):,})"))
            parts.append(tag("p", about, class_="soft"))
            parts.append(tag("ul", *listed, class_="lines"))
    return together(parts) if parts else tag("p", "Nothing was left out or changed.")

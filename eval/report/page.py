"""report.html of `python -m eval.score`: scores as one page for whoever decides to rely on the model or not.

The verdict comes first, in words; then what it is based on, down to single images.

The colours of report.css can be told apart with any kind of colour vision (Okabe and Ito, 2008: blue, orange
and yellow) and never carry a meaning alone: base is dashed or hollow wherever tuned is solid. report.js hides
the questions that do not match the filter, and an image with the last of its questions; it unfolds what is
folded while a filter is active. Without the script everything is shown, unfiltered.

Names and answers are foreign text. All of it passes through `tag` of llava/common/html/markup.py,
which escapes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eval.report.cases import Cases
from eval.report.decision import decision_part
from eval.report.gallery import gallery_part
from eval.report.phrases import capitalise, counted
from eval.report.plots import probability_part
from eval.report.tables import answers_part, scores_part, slices_part
from eval.report.verdict import RULES, STANDINGS, Verdict, make_verdict
from eval.scoring.schema import Probe, Scores
from llava.common.html.markup import Markup, cut, table, table_row, tag, together
from llava.common.html.page import Section, callout, document, read_asset
from llava.common.records import InputFile

_SIGNS = {"rely": "✓", "care": "△", "unclear": "?", "not": "✗"}
_SHORT = {"rely": "rely on it", "care": "with care", "unclear": "cannot tell", "not": "do not rely"}
_TEXT = 200


def render_page(scores: Scores, cases: Cases, image_folder: Path) -> str:
    """Return the whole page; images are read from `image_folder`, and the page says which cannot be."""
    verdicts = [
        make_verdict(task, "picture" if task.task in cases.asked_once else "question")
        for task in scores.tasks
    ]
    wordings = _wordings(cases)
    parts = [
        ("Task by task", "verdicts", _verdicts(verdicts, wordings)),
        ("Scores", "scores", scores_part(scores.tasks)),
        ("Answer by answer", "answers", answers_part(scores.tasks)),
        ("By kind of picture", "slices", slices_part(scores.tasks, scores.slices)),
        ("How sure it is", "sure", _probabilities(scores)),
        ("The decision", "decision", decision_part(scores.decision) if scores.decision else None),
        ("What tuning cost", "cost", _tuning_cost(scores.probe) if scores.probe else None),
        ("Pictures", "pictures", gallery_part(cases, image_folder)),
        ("How it was measured", "measured", _measured(scores)),
    ]
    sections: list[Section] = [(name, anchor, body) for name, anchor, body in parts if body]
    model = cut(", ".join(scores.answers.model_ids) or scores.answers.name, _TEXT)
    header = [_facts(scores, cases), _standings(verdicts, wordings), *_warnings(scores)]
    return document(
        f"May you rely on “{model}”?",
        header,
        sections,
        style=read_asset("eval.report", "report.css"),
        script=read_asset("eval.report", "report.js"),
    )


def _wordings(cases: Cases) -> dict[str, str]:
    """Return the commonest wording of each task's questions, in quotes."""
    return {
        task: f"“{cut(counts.most_common(1)[0][0], _TEXT)}”" + (" and the like" if len(counts) > 1 else "")
        for task, counts in cases.wordings.items()
    }


def _warnings(scores: Scores) -> list[Markup]:
    return [callout(scores.warnings)] if scores.warnings else []


def _facts(scores: Scores, cases: Cases) -> Markup:
    images = cases.images
    text = f"Tested on {counted(scores.truth.lines, 'question')}"
    if images:
        text += f" about {counted(len(images), 'picture')}"
        if cases.groups != len(images):
            text += f" ({cases.groups:,} independent groups)"
    if scores.baseline_answers:
        base = cut(", ".join(scores.baseline_answers.model_ids) or scores.baseline_answers.name, _TEXT)
        text += f", beside the base model “{base}”"
        return tag("p", f"{text}. Below, this model is “tuned” and that one “base”.")
    return tag("p", f"{text}. Below, this model is called “tuned”.")


def _standings(verdicts: Sequence[Verdict], display_text: dict[str, str]) -> Markup:
    """Return the short answer: which tasks have which standing, and why."""
    groups = []
    for standing, words in STANDINGS.items():
        with_standing = [item for item in verdicts if item.standing == standing]
        if not with_standing:
            continue
        lines = [
            tag("li", tag("b", item.task), _question(display_text.get(item.task)), ": ", item.reason)
            for item in with_standing
        ]
        groups.append(tag("li", tag("h2", f"{_SIGNS[standing]} {words}"), tag("ul", *lines), class_=standing))
    limits = tag(
        "p",
        "This holds for pictures like those of this test. Other cameras, components or kinds of defect need "
        "a test of their own.",
        class_="soft",
    )
    return together([tag("ul", *groups, class_="standings"), limits])


def _question(text: str | None) -> Markup | None:
    return tag("span", f" {text}", class_="soft") if text else None


def _verdicts(verdicts: Sequence[Verdict], display_text: dict[str, str]) -> Markup:
    cards = [
        tag(
            "article",
            tag(
                "h3",
                item.task,
                tag(
                    "span",
                    f"{_SIGNS[item.standing]} {_SHORT[item.standing]}",
                    class_=f"badge {item.standing}",
                ),
            ),
            tag("p", display_text[item.task], class_="soft") if item.task in display_text else None,
            tag("ul", *(tag("li", line) for line in item.lines)),
        )
        for item in verdicts
    ]
    rules = tag(
        "details",
        tag("summary", "How the verdicts are reached"),
        tag(
            "ul",
            *(tag("li", f"{capitalise(_SHORT[standing])}: {rule}") for standing, rule in RULES.items()),
            tag("li", "“Could be 78% to 93%”: such a range holds the true value 19 times in 20."),
        ),
    )
    return together([tag("div", *cards, class_="verdicts"), rules])


def _probabilities(scores: Scores) -> Markup | None:
    parts = []
    for task in scores.tasks:
        drawing = probability_part(task)
        if drawing:
            parts += [tag("h3", task.task), drawing]
    return together(parts) if parts else None


def _tuning_cost(probe: Probe) -> Markup:
    intro = tag(
        "p",
        f"General questions that have nothing to do with the tuning ({probe.truth.name}, "
        f"{counted(probe.whole.n, 'question')}): {probe.verdict}.",
    )
    parts = [intro]
    if probe.baseline_answers is None:
        parts.append(
            tag("p", "Without answers of the base model nothing says what they were before.", class_="soft")
        )
    return together([*parts, scores_part(probe.tasks)])


def _measured(scores: Scores) -> Markup:
    bootstrap = scores.bootstrap
    rules = [
        "An answer that is missing or cannot be understood is wrong.",
        f"Ranges hold the true value 19 times in 20: {bootstrap.resamples:,} resamples of groups of pictures "
        f"that are not independent of each other (seed {bootstrap.seed}); for shares of right answers "
        "Wilson's interval, with groups for trials.",
        "Base and tuned are compared on the same resamples, question by question.",
        "Without looking: the better of always giving the commonest answer and guessing at random.",
    ]
    return tag(
        "details",
        tag("summary", "Files, models and rules"),
        _input_files(scores),
        tag("ul", *(tag("li", rule) for rule in rules)),
    )


def _input_files(scores: Scores) -> Markup:
    files: list[tuple[str, InputFile | None]] = [
        ("truth", scores.truth),
        ("answers of tuned", scores.answers),
        ("answers of base", scores.baseline_answers),
    ]
    if scores.probe:
        files += [
            ("probe: truth", scores.probe.truth),
            ("probe: answers of tuned", scores.probe.answers),
            ("probe: answers of base", scores.probe.baseline_answers),
        ]
    rows = [
        table_row(
            what,
            cut(file.name, _TEXT),
            f"{file.lines:,}",
            cut(", ".join(file.model_ids), _TEXT) or "–",
            tag("td", tag("code", file.sha256)),
        )
        for what, file in files
        if file
    ]
    return table("What was read.", ["", "file", "lines", "model", "SHA-256"], rows)

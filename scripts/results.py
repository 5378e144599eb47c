"""Write the tables of results in README.md and docs/results.md from the scores that they show.

`docs/scores/NAME.json` is the scores.json of the commands that docs/results.md names. A table of headlines
stands between `<!-- scores NAME -->` and `<!-- end -->`, a shorter one for the README between
`<!-- brief NAME -->` and `<!-- end -->`, one of every number between `<!-- all NAME -->` and `<!-- end -->`;
what is between them is not for editing by hand.

    cp playground/quickstart/run/scores/scores.json docs/scores/quickstart.json
    python scripts/results.py           # write
    python scripts/results.py --check   # exit code 1 if a table is not that of its scores
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, wherever it is called from

from eval.scoring.schema import Estimate, Scores, TaskScore
from llava.common.files import read_text, write_text

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", ROOT / "docs" / "results.md")
_TABLE_PLACE = re.compile(
    r"<!-- (?P<what>scores|brief|all) (?P<name>\w+) -->\n.*?(?=<!-- end -->)", re.DOTALL
)

_METRICS = {
    "balanced_accuracy": "balanced accuracy",
    "exact": "exact",
    "mean_iou": "mean IoU",
    "token_f1": "word F1",
    "field_accuracy": "right fields",
}
_QUESTIONS = {
    "presence": "is there a defect?",
    "presence_of": "is there a ... (each kind by its name)?",
    "kind": "which kind of defect?",
    "kind_of_six": "which of these six kinds?",
    "count": "how many defects?",
    "where": "where is it? (words)",
    "box": "where is it? (box)",
    "describe": "describe it",
    "choice": "which of these four? (letters)",
}
_BRIEF = {
    "presence": "Is there a defect?",
    "kind": "Which defect is it?",
    "presence_of": "Is there a broken disc? (and the other kinds)",
}
_NUMBERS = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "over_call": "false alarms",
    "miss": "misses",
    "says_yes": "says yes",
    "parsed": "understood",
    "within_one": "off by one at most",
    "mean_abs_error": "mean error",
    "acc_50": "IoU of 0.5 or more",
    "rouge_l": "ROUGE-L",
    "bleu": "BLEU",
    "cider": "CIDEr",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "ece": "calibration error",
    "brier": "Brier score",
}


def headline_table(scores: Scores) -> str:
    """Return a row per task, the largest gain over blind guessing first; then the recall of each class."""
    lines = [
        "| what is asked | questions | base | tuned [95% interval] | without looking |",
        "|---|---|---|---|---|",
    ]
    for task in sorted(scores.tasks, key=lambda task: -_gain(task)):
        base = "-" if task.base is None else f"{task.base.metrics[task.headline].value:.2f}"
        question = f"{_QUESTIONS[task.task]} ({_METRICS[task.headline]})"
        tuned = _headline_cell(task.tuned.metrics[task.headline], blind=task.best_guess)
        lines.append(f"| {question} | {task.n} | {base} | {tuned} | {task.best_guess:.2f} |")
    return "\n".join(["", *lines, "", *filter(None, map(_recalls, scores.tasks)), ""])


def brief_table(scores: Scores) -> str:
    """Return the rows of the README: presence, each kind by its name, and kind."""
    lines = [
        "| share of right answers, sound and defective counted alike | base | tuned | guess |",
        "|---|---|---|---|",
    ]
    tasks = {task.task: task for task in scores.tasks}
    for name, question in _BRIEF.items():
        if (task := tasks.get(name)) and task.base is not None:
            base, guess = task.base.metrics[task.headline].value, task.best_guess
            tuned = _headline_cell(task.tuned.metrics[task.headline], blind=guess)
            lines.append(f"| {question} | {base:.2f} | {tuned} | {guess:.2f} |")
    return "\n".join(["", *lines, "", *filter(None, map(_found, scores.tasks)), ""])


def full_table(scores: Scores) -> str:
    """Return a row per task and metric, folded away."""
    lines = ["| task | | base | tuned [95%] | tuned - base | blind majority |", "|---|---|---|---|---|---|"]
    for task in scores.tasks:
        base = task.base.metrics if task.base else {}
        lines += _rows(task.task, task.tuned.metrics, base, task.difference or {}, task.majority)
        if task.tuned.choices:
            base = task.base.choices.metrics if task.base and task.base.choices else {}
            lines += _rows("", task.tuned.choices.metrics, base, task.choices_difference or {}, {})
    summary = f"<summary>Every number ({sum(task.n for task in scores.tasks)} questions)</summary>"
    return "\n".join(["", "<details>", summary, "", *lines, "", "</details>", ""])


def _rows(
    task: str,
    tuned: Mapping[str, Estimate],
    base: Mapping[str, Estimate],
    difference: Mapping[str, Estimate],
    blind: Mapping[str, float],
) -> list[str]:
    rows = []
    for name, value in tuned.items():
        base_value = f"{base[name].value:.2f}" if name in base else "-"
        gain = _with_interval(difference[name], "+") if name in difference else "-"
        blind_value = f"{blind[name]:.2f}" if name in blind else ""
        label = _METRICS.get(name) or _NUMBERS[name]
        rows.append(f"| {task} | {label} | {base_value} | {_with_interval(value)} | {gain} | {blind_value} |")
        task = ""
    return rows


def _with_interval(estimate: Estimate, sign: str = "") -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:{sign}.2f}"
    return f"{estimate.value:{sign}.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"


def _gain(task: TaskScore) -> float:
    return task.tuned.metrics[task.headline].value - task.best_guess


def _headline_cell(estimate: Estimate, blind: float) -> str:
    """Return a value with its interval, bold where the whole interval lies above blind guessing."""
    value, *interval = _with_interval(estimate).split(" ", 1)
    bold = "**" if estimate.low is not None and estimate.low > blind else ""
    return " ".join([f"{bold}{value}{bold}", *interval])


def _found(task: TaskScore) -> str:
    """Return in words which defects were found, for the task `presence`."""
    if task.task != "presence":
        return ""
    parts = [(part.label or "", part.tuned.value, part.n) for part in task.slices if part.answer == "yes"]
    sound = [(1 - part.tuned.value, part.n) for part in task.slices if part.answer == "no"]
    alarms = f"{round(sum(share * n for share, n in sound))} of {sum(n for _, n in sound)}"
    return f"Defects found: {_recall_list(parts)}. False alarms: {alarms}."


def _recalls(task: TaskScore) -> str:
    """Return the right answers per true class in words, for the tasks `presence` and `kind`."""
    if task.task == "presence":
        return _found(task)
    if task.task == "kind" and task.tuned.per_class:
        parts = [
            (row.name, row.recall.value, row.support)
            for row in task.tuned.per_class
            if row.recall is not None and row.support
        ]
        return f"Kinds named rightly: {_recall_list(parts)}."
    return ""


def _recall_list(parts: list[tuple[str, float, int]]) -> str:
    best_first = sorted(parts, key=lambda part: (-part[1], part[0]))
    return ", ".join(f"{name.replace('_', ' ')} {round(share * n)}/{n}" for name, share, n in best_first)


def fill_tables(text: str) -> str:
    """Return a page's text with its tables written anew."""

    def fill(match: re.Match[str]) -> str:
        path = ROOT / "docs" / "scores" / f"{match['name']}.json"
        scores = Scores.model_validate_json(read_text(path))
        table = {"scores": headline_table, "brief": brief_table, "all": full_table}[match["what"]]
        content = table(scores)
        return f"<!-- {match['what']} {match['name']} -->\n{content}"

    return _TABLE_PLACE.sub(fill, text)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a table is stale")
    check = parser.parse_args().check
    stale = {page: new for page in PAGES if (new := fill_tables(old := read_text(page))) != old}
    for page, text in stale.items():
        print(
            f"{page.relative_to(ROOT)}: {'its tables are not those of docs/scores' if check else 'written'}"
        )
        if not check:
            write_text(page, text)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())

"""The score command as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llava.common.errors import InputError
from llava.common.files import write_jsonl
from tests.support.score_rows import answer, run, truth


def test_missing_and_unparsed_answers_are_wrong_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truths = [truth(i, "yes" if i < 2 else "no") for i in range(5)]
    answers = [answer(0, "Yes"), answer(1, "perhaps"), answer("2", "No"), answer(3, "", error="truncated")]
    scores = run(tmp_path, truths, [*answers, answer(77, "Yes")])
    (task,) = scores.tasks
    assert (task.tuned.missing, task.tuned.unparsed, task.tuned.unreadable) == (1, 2, 1)
    assert task.tuned.confusion == [[1, 0, 1], [0, 1, 2]]
    assert task.tuned.metrics["accuracy"].value == 0.4
    assert task.tuned.metrics["parsed"].value == 0.4
    printed = capsys.readouterr().out
    assert "1 of 5 questions have NO ANSWER" in printed
    assert "1 question could not be answered" in printed
    assert "1 answer to questions that the truth does not hold" in printed
    assert "small test" in printed


def test_a_kind_that_is_never_found_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truths = [truth(i, "yes", label="bird nest" if i % 10 else "missing disc") for i in range(60)]
    truths += [truth(i, "no", label="none") for i in range(60, 120)]
    answers = [answer(i, "Yes." if i < 60 and i % 10 else "No.") for i in range(120)]
    (task,) = run(tmp_path, truths, answers).tasks
    assert task.tuned.metrics["balanced_accuracy"].value == pytest.approx(0.95)
    found = {(part.answer, part.label): part.tuned.value for part in task.slices}
    assert found == {("no", "none"): 1, ("yes", "bird nest"): 1, ("yes", "missing disc"): 0}
    assert "missing disc" in capsys.readouterr().out


def test_base_and_tuned_are_compared_in_pairs(tmp_path: Path) -> None:
    """5 of 100 answers differ, all for the better: the pairs decide, although the two intervals overlap."""
    truths = [truth(i, "yes" if i % 2 else "no") for i in range(100)]
    swap = {"yes": "no", "no": "yes"}
    wrong_base, wrong_tuned = set(range(30)), set(range(6, 30))
    base = [answer(i, swap[t["answer"]] if i in wrong_base else t["answer"]) for i, t in enumerate(truths)]
    tuned = [answer(i, swap[t["answer"]] if i in wrong_tuned else t["answer"]) for i, t in enumerate(truths)]
    (task,) = run(tmp_path, truths, tuned, base).tasks
    assert task.difference is not None and task.base is not None
    difference = task.difference["accuracy"]
    assert difference.value == pytest.approx(0.06)
    assert difference.low is not None and difference.low > 0
    low, high = task.tuned.metrics["accuracy"].low, task.base.metrics["accuracy"].high
    assert low is not None and high is not None and low < high  # apart, the intervals would not tell
    assert task.verdict.startswith("tuned is better: +0.06 [")

    (task,) = run(tmp_path, truths, base, tuned).tasks
    assert task.verdict.startswith("tuned is worse: -0.06 [")
    (task,) = run(tmp_path, truths, base, base).tasks
    assert task.verdict.startswith("the same")


def test_what_questions_give_away_is_no_merit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tuned is right where a guess from the questions' words is, and no more: better than base, and blind."""
    truths = [truth(i, "yes" if i % 2 else "no") for i in range(100)]
    for i, line in enumerate(truths):
        line["meta"] = {"blind": line["answer"] if i % 10 < 8 else "yes"}
    tuned = [answer(i, t["meta"]["blind"]) for i, t in enumerate(truths)]
    base = [answer(i, "yes") for i in range(100)]
    (task,) = run(tmp_path, truths, tuned, base).tasks
    assert task.blind["balanced_accuracy"] == task.best_guess == pytest.approx(0.9)
    assert task.majority["balanced_accuracy"] == 0.5
    assert task.outcome == "blind" and not task.sees
    printed = " ".join(capsys.readouterr().out.split())
    assert "a guess from the questions' words and boxes 0.90" in printed
    assert "no better than a guess without looking" in (tmp_path / "out" / "report.html").read_text()
    # Of a truth file that does not say, the commonest answer is all that is known.
    del truths[0]["meta"]
    (task,) = run(tmp_path, truths, tuned, base).tasks
    assert task.blind == {} and task.best_guess == 0.5 and task.outcome == "better"


def test_few_images_decide_nothing(tmp_path: Path) -> None:
    truths = [truth(i, "yes" if i % 2 else "no") for i in range(6)]
    tuned = [answer(i, t["answer"]) for i, t in enumerate(truths)]
    base = [*tuned[:5], answer(5, "no")]
    (task,) = run(tmp_path, truths, tuned, base).tasks
    assert task.small
    assert task.verdict.startswith("too few pictures to decide")


def test_a_perfect_score_is_not_certainty(tmp_path: Path) -> None:
    """Every resample scores 1.0; the interval is Wilson's and stays open below."""
    truths = [truth(i, "yes" if i % 2 else "no") for i in range(60)]
    answers = [answer(i, t["answer"]) for i, t in enumerate(truths)]
    base = [answer(i, "yes") for i in range(60)]
    (task,) = run(tmp_path, truths, answers, base).tasks
    best = task.tuned.metrics["balanced_accuracy"]
    assert best.value == 1 and best.low is not None and 0.8 < best.low < 0.95
    constant = task.base.metrics["balanced_accuracy"] if task.base else None
    assert constant is not None and constant.value == 0.5
    assert constant.low is not None and 0.4 < constant.low < 0.5
    assert task.difference is not None and task.difference["balanced_accuracy"].value == 0.5
    assert task.majority["accuracy"] == 0.5 and task.majority["balanced_accuracy"] == 0.5


def test_every_type_of_question(tmp_path: Path) -> None:
    frame = {"frame": "padded", "width": 200, "height": 100}
    truths = [
        truth(0, "burn", "class", classes=["burn", "nest"]),
        truth(1, "nest", "class", classes=["burn", "nest"]),
        truth(2, "3", "count"),
        truth(3, "9", "count"),
        truth(4, "[0.000, 0.250, 0.500, 0.750]", "box", meta=frame),
        truth(5, "[0.000, 0.250, 0.500, 0.750]", "box", meta=frame),
        truth(6, "A burn.", "text"),
    ]
    answers = [
        answer(0, "A burn."),
        answer(1, "a burn"),
        answer(2, "three"),
        answer(3, "8"),
        # What lies in the padding (above 0.25) is no part of the picture: a perfect box.
        answer(4, "[0.000, 0.100, 0.500, 0.750]"),
        # In the padding alone: parsed, and wrong.
        answer(5, "[0.000, 0.000, 0.500, 0.200]"),
        answer(6, "the burn"),
    ]
    scores = run(tmp_path, truths, answers)
    values = {task.type: {k: v.value for k, v in task.tuned.metrics.items()} for task in scores.tasks}
    assert values["class"]["balanced_accuracy"] == 0.5
    assert values["count"]["exact"] == 0.5 and values["count"]["mean_abs_error"] == 0.5
    assert values["box"] == {"mean_iou": 0.5, "acc_50": 0.5, "parsed": 1.0}
    assert values["text"] == {"token_f1": 0.5, "exact": 0.0, "parsed": 1.0, "rouge_l": 0.5}


def test_reports_field_by_field(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = '{"defect": "burn", "severity": "minor", "action": null}'
    two = '[{"defect": "burn", "severity": "minor"}, {"defect": "nest", "severity": "severe"}]'
    truths = [truth(i, one if i < 3 else two, "json") for i in range(5)]
    answers = [
        answer(0, '{"severity": "Minor", "defect": "burn", "action": null}'),  # all right, in another order
        answer(1, '{"defect": "burn", "severity": "severe", "action": null, "note": "x"}'),  # 2 of 3
        answer(2, "a burn"),  # no JSON: 0 of 3
        # In another order, one severity wrong: defect 2 of 2, severity 1 of 2.
        answer(3, '[{"defect": "nest", "severity": "severe"}, {"defect": "burn", "severity": "x"}]'),
        # An entry too many: defect 2 of 3, severity 2 of 3.
        answer(4, two[:-1] + ', {"defect": "x", "severity": "y"}]'),
    ]
    (task,) = run(tmp_path, truths, answers).tasks
    values = {name: estimate.value for name, estimate in task.tuned.metrics.items()}
    right = (3 + 2 + 0) + (1 + 1 / 2) + (2 / 3 + 2 / 3)
    assert values["field_accuracy"] == pytest.approx(right / 13, abs=1e-6)
    assert values["field.defect"] == pytest.approx((1 + 1 + 0 + 1 + 2 / 3) / 5, abs=1e-6)
    assert values["field.action"] == pytest.approx(2 / 3, abs=1e-6)
    assert (values["exact"], values["parsed"]) == (0.2, 0.8)
    assert task.headline == "field_accuracy" and 0 < task.majority["field_accuracy"] < 1
    assert "Reports" in capsys.readouterr().out


def test_what_is_not_there_may_be_answered_instead_of_a_box(tmp_path: Path) -> None:
    absent = {"classes": ["not there"]}
    truths = [truth(i, "[0.1, 0.1, 0.5, 0.5]" if i < 2 else "not there", "box", **absent) for i in range(5)]
    answers = [
        answer(0, "[0.1, 0.1, 0.5, 0.5]"),
        answer(1, "It is not there."),  # but it is
        answer(2, "Not there."),
        answer(3, "[0.1, 0.1, 0.5, 0.5]"),  # a box of nothing
        answer(4, "who knows"),
    ]
    (task,) = run(tmp_path, truths, answers).tasks
    values = {name: estimate.value for name, estimate in task.tuned.metrics.items()}
    assert values == {"mean_iou": 0.4, "acc_50": 0.4, "parsed": 0.8}
    (task,) = run(tmp_path, truths[2:], answers[2:]).tasks
    assert task.majority["mean_iou"] == 0


def test_languages_are_scored_apart(tmp_path: Path) -> None:
    russian = {"language": "ru", "classes": ["да", "нет"]}
    truths = [truth(i, "yes" if i % 2 else "no", task="presence", group=str(i)) for i in range(4)]
    truths += [
        truth(f"r{i}", "Да." if i % 2 else "нет", task="presence", type="yesno", **russian) for i in range(4)
    ]
    answers = [answer(i, "yes") for i in range(4)] + [
        answer(f"r{i}", "Да" if i % 2 else "Нет") for i in range(4)
    ]
    tasks = run(tmp_path, truths, answers).tasks
    assert [task.task for task in tasks] == ["presence (en)", "presence (ru)"]
    assert [task.tuned.metrics["accuracy"].value for task in tasks] == [0.5, 1.0]
    assert tasks[1].classes == ["да", "нет"] and tasks[1].tuned.metrics["says_yes"].value == 0.5
    # In one language tasks keep their names.
    assert [task.task for task in run(tmp_path, truths[4:], answers[4:]).tasks] == ["presence"]


def test_letters_are_not_articles(tmp_path: Path) -> None:
    letters = ["A", "B", "C"]
    truths = [truth(i, letters[i % 3], "class", classes=letters) for i in range(6)]
    answers = [answer(i, "A missing disc" if i % 3 == 0 else f"{letters[i % 3]}.") for i in range(6)]
    (task,) = run(tmp_path, truths, answers).tasks
    assert task.tuned.metrics["accuracy"].value == pytest.approx(4 / 6, abs=1e-6)
    assert task.tuned.unparsed == 2


def test_scores_repeat_to_the_byte(tmp_path: Path) -> None:
    truths = [truth(i, "yes" if i % 3 else "no") for i in range(50)]
    answers = [answer(i, "yes" if i % 4 else "no") for i in range(50)]
    run(tmp_path, truths, answers)
    first = (tmp_path / "out" / "scores.json").read_bytes()
    run(tmp_path, truths, answers)
    assert (tmp_path / "out" / "scores.json").read_bytes() == first
    assert json.loads(first)["truth"]["sha256"]


@pytest.mark.parametrize(
    ("truths", "answers", "message"),
    [
        ([], [answer(1, "yes")], "no line in it"),
        ([truth(1, "yes")], [answer(2, "yes")], "none of its 1 question ids"),
        ([truth(1, "yes")], [], "no line in it, no answer to score"),
        ([truth(1, "yes")], [answer(1, "yes"), answer("1", "no")], "stands there twice"),
        ([truth(1, "yes"), truth(1, "no")], [answer(1, "yes")], "stands there twice"),
        ([truth(1, "yes")], [{"question_id": 1}], "a.jsonl, line 1: prompt"),
        ([truth(1, "burn", "class", classes=["a", "b"])], [answer(1, "a")], "none of its classes"),
        (
            [truth(1, "a b", "class", classes=["a b", "a_b"])],
            [answer(1, "a b")],
            "task 'class': classes 'a b' and 'a_b' cannot be told apart",
        ),
        ([truth(1, "somewhere", "box")], [answer(1, "a")], "is no box"),
        (
            [truth(1, "[0, 0, 1, 1]", "box", meta={"frame": "padded"})],
            [answer(1, "a")],
            "`width` and `height`",
        ),
        ([truth(1, "yes"), truth(2, "3", "count", task="yesno")], [answer(1, "yes")], "mixes the types"),
        ([truth(1, "да")], [answer(1, "да")], "write yes or no"),
        ([truth(1, "да", classes=["да"])], [answer(1, "да")], "the words for yes and no"),
        ([truth(1, "yes", classes=["да", "нет"])], [answer(1, "да")], "write да or нет"),
        (
            [truth(1, "да", classes=["да", "нет"]), truth(2, "yes")],
            [answer(1, "да")],
            "other words for yes and no",
        ),
        ([truth(1, "a burn", "json")], [answer(1, "a")], "a JSON object or a list"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, truths: list[Any], answers: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        run(tmp_path, truths, answers)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_command(tmp_path: Path, repo: Path) -> None:
    """Started as in the README: exit 2 and one line for a missing file, else tables within 100 columns."""
    kinds = ["missing disc", "broken disc", "flashover burn", "pollution", "bird nest"]
    truths = [
        truth(i, "yes" if i % 2 else "no", task="presence", label=kinds[i % 5] if i % 2 else "none")
        for i in range(40)
    ]
    truths += [truth(f"k{i}", kinds[i % 5], "class", task="kind", classes=kinds) for i in range(40)]
    write_jsonl(tmp_path / "t.jsonl", truths)
    write_jsonl(tmp_path / "a.jsonl", [answer(t["question_id"], t["answer"]) for t in truths])
    write_jsonl(tmp_path / "b.jsonl", [answer(t["question_id"], "Yes.") for t in truths])
    command = [sys.executable, "-m", "eval.score", "--output", str(tmp_path / "out")]
    command += ["--truth-file", str(tmp_path / "t.jsonl"), "--answers-file"]
    done = subprocess.run([*command, str(tmp_path / "none.jsonl")], cwd=repo, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path / 'none.jsonl'}: no such file\n"
    done = subprocess.run(
        [*command, str(tmp_path / "a.jsonl"), "--baseline-answers", str(tmp_path / "b.jsonl")],
        cwd=repo,
        capture_output=True,
        text=True,
        check=True,
    )
    table = done.stdout.split("written to")[0]
    assert max(map(len, table.splitlines())) <= 100
    assert "presence (balanced accuracy): tuned is better: +0.50" in table
    assert "false alarms" in table

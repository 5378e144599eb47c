"""The score command: probabilities, slices, the probe, comparisons, and tests that say too little."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eval.answering.questions import find_images, read_questions
from eval.score import main
from eval.scoring import texts
from eval.scoring.schema import Scores
from llava.common.errors import InputError
from llava.common.files import read_jsonl, write_jsonl
from llava.common.records import Truth
from tests.support.score_rows import answer, run, truth


def answer_with_p(question: int | str, yes: float, **more: Any) -> dict[str, Any]:
    text = "yes" if yes >= 0.5 else "no"
    return answer(question, text, choices={"yes": yes, "no": round(1 - yes, 6)}) | more


def test_probabilities_give_a_ranking_and_a_threshold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model that ranks perfectly but always says no is told so, and where to call yes instead."""
    truths = [truth(i, "yes" if i % 2 else "no") for i in range(60)]
    answers = [answer_with_p(i, 0.3 + i / 1000 if i % 2 else i / 1000) for i in range(60)]
    base = [answer_with_p(i, 0.4) for i in range(60)]
    (task,) = run(tmp_path, truths, answers, base).tasks
    assert task.tuned.metrics["balanced_accuracy"].value == 0.5
    found = task.tuned.choices
    assert found is not None and (found.n, found.without) == (60, 0)
    area = found.metrics["auroc"]
    assert area.value == 1 and area.low is not None and 0.8 < area.low < 0.95  # 30 groups are no certainty
    assert found.threshold is not None and found.threshold.threshold == 0.303  # of 30 yes, one may be missed
    assert (found.threshold.miss, found.threshold.over_call) == (pytest.approx(1 / 30, abs=1e-6), 0)
    assert found.threshold.folds == 5 and found.threshold.cross_miss is not None
    assert task.base is not None and task.base.choices is not None
    assert task.base.choices.metrics["auroc"].value == 0.5
    assert task.choices_difference is not None and task.choices_difference["auroc"].value == 0.5
    assert found.roc[0].points[0] == (0, 0) and found.roc[0].points[-1] == (1, 1)
    assert "call yes from P(yes) = 0.303" in capsys.readouterr().out


def test_a_threshold_that_tells_nothing_apart_is_not_recommended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """To miss few, P(yes) from nearly 0 up would have to be called yes: that is everything."""
    truths = [truth(i, "yes" if i % 2 else "no") for i in range(60)]
    answers = [answer_with_p(i, round(0.000002 * (1 + i // 2 % 10), 6)) for i in range(60)]
    (task,) = run(tmp_path, truths, answers).tasks
    assert task.tuned.choices and task.tuned.choices.threshold
    assert not task.tuned.choices.threshold.separates
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "call yes from" not in capsys.readouterr().out
    assert "from a probability of" not in page


def test_probabilities_of_classes_and_letters(tmp_path: Path) -> None:
    kinds = ["burn", "bird nest", "none"]
    truths = [truth(i, kinds[i % 3], "class", classes=kinds) for i in range(30)]
    answers = [
        answer(
            i,
            kinds[i % 3],
            choices={k: 0.8 if k == kinds[i % 3] else 0.1 for k in ("none", "burn", "bird nest")},
        )
        for i in range(30)
    ]
    (task,) = run(tmp_path, truths, answers).tasks
    found = task.tuned.choices
    assert found is not None and found.threshold is None
    assert found.metrics["auroc"].value == 1 and found.metrics["ece"].value == pytest.approx(0.2)
    assert [curve.name for curve in found.roc] == kinds
    assert [(part.n, part.probability, part.true) for part in found.reliability] == [(30, 0.8, 1.0)]


def test_missing_probabilities_are_counted_and_said(tmp_path: Path) -> None:
    truths = [truth(i, "yes" if i % 2 else "no") for i in range(20)]
    answers = [answer_with_p(i, 0.9 if i % 2 else 0.2) for i in range(14)]
    answers += [answer(i, "yes", choices={"maybe": 1.0}) for i in range(14, 17)]
    answers += [answer(i, "yes") for i in range(17, 19)]  # and none for 19
    scores = run(tmp_path, truths, answers, [answer_with_p(i, 0.6) for i in range(20)])
    (task,) = scores.tasks
    assert task.tuned.choices is not None
    assert (task.tuned.choices.n, task.tuned.choices.without) == (14, 6)
    assert any("6 of tuned's 20 answers have no probabilities" in line for line in scores.warnings)
    # The pairs are those that both have: base alone has 20, of which it ranks none.
    assert task.choices_difference is not None and task.choices_difference["auroc"].value == 0.5


@pytest.mark.parametrize(
    ("make", "accuracy", "over_call", "miss", "parsed"),
    [
        (lambda i: answer(i, "Yes."), 0.25, 1.0, 0.0, 1.0),
        (lambda i: answer(i, "who knows"), 0.0, 0.0, 1.0, 0.0),
    ],
    ids=["all yes", "all unparsed"],
)
def test_constant_answers(
    tmp_path: Path, make: Callable[[int], Any], accuracy: float, over_call: float, miss: float, parsed: float
) -> None:
    truths = [truth(i, "yes" if i % 4 == 0 else "no") for i in range(40)]
    (task,) = run(tmp_path, truths, [make(i) for i in range(40)]).tasks
    values = {name: estimate.value for name, estimate in task.tuned.metrics.items()}
    assert (values["accuracy"], values["over_call"], values["miss"]) == (accuracy, over_call, miss)
    assert values["parsed"] == parsed
    assert values["balanced_accuracy"] == (0.5 if parsed else 0.0)
    assert task.sees is (None if parsed else False)
    assert task.tuned.confusion == ([[10, 0, 0], [30, 0, 0]] if parsed else [[0, 0, 10], [0, 0, 30]])


def test_a_class_that_is_never_true(tmp_path: Path) -> None:
    """Answering it costs, but it has no recall, no AUROC and no share in the means."""
    kinds = ["burn", "nest", "crack"]
    truths = [truth(i, kinds[i % 2], "class", classes=kinds) for i in range(40)]
    said = ["burn", "crack", "burn", "nest"]
    probabilities = {"burn": 0.5, "nest": 0.3, "crack": 0.2}
    (task,) = run(tmp_path, truths, [answer(i, said[i % 4], choices=probabilities) for i in range(40)]).tasks
    assert task.tuned.metrics["balanced_accuracy"].value == pytest.approx((1 + 0.5) / 2)
    assert task.tuned.per_class is not None and task.tuned.choices is not None
    crack = task.tuned.per_class[2]
    assert (crack.support, crack.answered, crack.recall, crack.precision) == (0, 10, None, 0)
    assert [curve.name for curve in task.tuned.choices.roc] == ["burn", "nest"]
    assert task.majority["balanced_accuracy"] == 0.5 and task.random["accuracy"] == pytest.approx(
        1 / 3, abs=1e-6
    )


def test_one_image_decides_nothing(tmp_path: Path) -> None:
    """Forty questions about one picture are one observation: no interval is narrower than ignorance."""
    truths = [truth(i, "yes" if i % 2 else "no", group="one") for i in range(40)]
    tuned = [answer_with_p(i, 0.9 if i % 2 else 0.1) for i in range(40)]
    base = [answer_with_p(i, 0.9) for i in range(40)]
    scores = run(tmp_path, truths, tuned, base)
    (task,) = scores.tasks
    assert (task.groups, task.small, task.outcome, task.sees) == (1, True, "undecided", None)
    best = task.tuned.metrics["accuracy"]
    assert best.value == 1 and best.low is not None and best.low < 0.21  # Wilson's of 1 in 1
    assert task.needed_groups is not None and task.needed_groups > 1
    assert scores.verdict == (
        "This test is too small to decide yesno: 1 independent group of pictures; some 20 would decide the "
        "first of them."
    )
    assert task.tuned.choices is not None and task.tuned.choices.threshold is not None
    assert task.tuned.choices.threshold.cross_miss is None  # nothing to cross-fit with


def test_what_would_decide_decides(tmp_path: Path) -> None:
    """A test of as many groups as `needed_groups` says is about enough for the same difference."""

    def task_of(groups: int) -> Any:
        truths = [truth(i, "yes" if i % 2 else "no") for i in range(groups)]
        swap = {"yes": "no", "no": "yes"}
        tuned = [answer(i, t["answer"] if i % 10 > 1 else swap[t["answer"]]) for i, t in enumerate(truths)]
        base = [answer(i, t["answer"] if i % 10 < 7 else swap[t["answer"]]) for i, t in enumerate(truths)]
        return run(tmp_path, truths, tuned, base).tasks[0]

    small = task_of(40)
    assert small.outcome == "undecided" and 100 < small.needed_groups < 400
    assert f"some {small.needed_groups:,} groups of pictures would be needed" in small.verdict
    assert task_of(2 * (small.needed_groups // 20) * 20).outcome == "better"


def test_slices_by_size_and_source_and_language(tmp_path: Path) -> None:
    truths = []
    for i in range(40):
        area = 0.005 if i < 20 else 0.3
        meta = {"area": area, "source": f"set/{'a' if i % 2 else 'b'}/{i}"}
        language = {"language": "ru", "classes": ["да", "нет"]} if i % 4 > 1 else {}
        word = "да" if language else "yes"
        truths.append(truth(i, word, meta=meta, **language))
    answers = [answer(i, t["answer"] if i >= 20 else "?") for i, t in enumerate(truths)]
    base = [answer(i, t["answer"]) for i, t in enumerate(truths)]
    scores = run(tmp_path, truths, answers, base)
    english = scores.tasks[0]
    found = {(part.by, part.name): part for part in english.slices if part.by != "truth"}
    assert set(found) == {("size", "small"), ("size", "large"), ("source", "set/a"), ("source", "set/b")}
    small, large = found["size", "small"], found["size", "large"]
    assert (small.tuned.value, large.tuned.value, small.n) == (0, 1, 10)
    assert small.difference is not None and (small.difference.value, small.difference.high) != (0, None)
    assert large.difference is not None and large.difference.value == 0
    whole = {(part.by, part.name): part.tuned.value for part in scores.slices}
    assert set(whole.values()) == {0.5} and ("language", "ru") in whole


def test_boxes_have_sizes_and_a_ceiling(tmp_path: Path) -> None:
    """A box a tenth wide, written with one decimal, may be the rounding of many."""
    truths = [
        truth(i, f"[0.1, 0.1, {0.2 if i % 2 else 0.9}, {0.2 if i % 2 else 0.9}]", "box") for i in range(40)
    ]
    (task,) = run(tmp_path, truths, [answer(i, t["answer"]) for i, t in enumerate(truths)]).tasks
    assert task.ceiling is not None and 0.4 < task.ceiling["mean_iou"] < 0.75
    fine = [t | {"answer": t["answer"].replace(",", "00,").replace("]", "00]")} for t in truths]
    (task,) = run(tmp_path, fine, [answer(i, t["answer"]) for i, t in enumerate(fine)]).tasks
    assert task.ceiling is not None and 0.98 < task.ceiling["mean_iou"] < 1
    assert [part.name for part in task.slices if part.by == "size"] == ["medium", "large"]


def test_text_measures_keep_every_alphabet(tmp_path: Path) -> None:
    sentences = ["Виден скол на третьей тарелке слева.", "Тарелка разбита, опора цела и чиста."]
    truths = [truth(i, sentences[i % 2], "text", language="ru") for i in range(10)]
    answers = [answer(i, sentences[0]) for i in range(10)]
    (task,) = run(tmp_path, truths, answers).tasks
    values = {name: estimate.value for name, estimate in task.tuned.metrics.items()}
    assert 0.5 <= values["rouge_l"] < 0.6 and 4 < values["cider"] < 7 and 0.4 < values["bleu"] < 0.7
    bleu = task.tuned.metrics["bleu"]
    assert bleu.low is not None and bleu.high is not None and bleu.low < bleu.value < bleu.high
    assert task.headline == "token_f1"


def test_without_the_text_libraries_the_command_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(texts, "LIBRARIES", ("rouge_score", "no_such_library"))
    scores = run(tmp_path, [truth(1, "a crack", "text")], [answer(1, "a crack")])
    assert "ROUGE-L, BLEU and CIDEr are left out: no_such_library not installed" in capsys.readouterr().out
    assert not any("ROUGE" in line for line in scores.warnings)  # it says nothing about the model
    assert "rouge_l" not in scores.tasks[0].tuned.metrics


def test_what_tuning_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truths = [truth(i, "yes" if i % 2 else "no") for i in range(40)]
    general = [truth(f"p{i}", str(i % 3), "count") for i in range(60)]
    files = {
        "t": truths,
        "a": [answer(i, t["answer"]) for i, t in enumerate(truths)],
        "pt": general,
        "pa": [answer(t["question_id"], t["answer"] if i % 3 else "7") for i, t in enumerate(general)],
        "pb": [answer(t["question_id"], t["answer"]) for t in general],
    }
    for name, rows in files.items():
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
    names = {"truth-file": "t", "answers-file": "a", "probe-truth": "pt", "probe-answers": "pa"}
    command = [
        part for flag, name in names.items() for part in (f"--{flag}", str(tmp_path / f"{name}.jsonl"))
    ]
    command += ["--output", str(tmp_path / "out")]
    assert main([*command, "--probe-baseline-answers", str(tmp_path / "pb.jsonl")]) == 0
    probe = Scores.model_validate_json((tmp_path / "out" / "scores.json").read_text()).probe
    assert (
        probe is not None
        and probe.outcome == "worse"
        and probe.whole.tuned.value == pytest.approx(2 / 3, abs=1e-6)
    )
    assert probe.whole.difference is not None and probe.whole.difference.value == pytest.approx(
        -1 / 3, abs=1e-6
    )
    assert "tuning COST 33 percentage points" in capsys.readouterr().out
    assert main(command) == 0
    assert "General questions (60): tuned answers 67% rightly." in capsys.readouterr().out
    with pytest.raises(InputError, match="--probe-truth and --probe-answers go together"):
        main([*command[:-4], "--output", "x"])  # without --probe-answers


def make_run(folder: Path, truths: list[Any], answers: list[Any], base: list[Any] | None = None) -> Path:
    folder.mkdir()
    run(folder, truths, answers, base)
    return folder / "out"


def test_runs_in_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truths = [truth(i, "yes" if i % 2 else "no") for i in range(100)]
    swap = {"yes": "no", "no": "yes"}

    def wrong(some: set[int]) -> list[Any]:
        return [answer(i, swap[t["answer"]] if i in some else t["answer"]) for i, t in enumerate(truths)]

    one = make_run(tmp_path / "one", truths, wrong(set(range(30))))
    two = make_run(tmp_path / "two", truths, wrong(set(range(6, 30))))
    pair = make_run(tmp_path / "pair", truths, wrong(set(range(6, 30))), wrong(set(range(30))))
    good = make_run(tmp_path / "good", truths, wrong(set()))
    capsys.readouterr()
    assert main(["--compare", str(one), str(two / "scores.json"), str(pair), str(good), str(one)]) == 0
    lines = capsys.readouterr().out.splitlines()
    row = next(number for number, line in enumerate(lines) if line.startswith("yesno"))
    assert lines[row].split()[-7:] == ["100", "0.70", "0.76", "0.76", "1.00", "0.70", "0.50"]
    assert "[0.61, 0.79]" in lines[row + 1]
    assert "  yesno: B not known, intervals overlap: +0.06" in lines
    assert any(line.startswith("  yesno: C better, in pairs: +0.06 [0.0") for line in lines)
    assert "  yesno: D better, intervals apart: +0.30" in lines
    assert "  yesno: E the same answers" in lines
    main(["--compare", str(pair), str(one)])
    assert any("B WORSE, in pairs: -0.06 [-0.1" in line for line in capsys.readouterr().out.splitlines())


def test_runs_that_cannot_be_compared(tmp_path: Path) -> None:
    truths = [truth(i, "yes" if i % 2 else "no") for i in range(4)]
    answers = [answer(i, "yes") for i in range(4)]
    one = make_run(tmp_path / "one", truths, answers)
    other = make_run(tmp_path / "other", truths[:3], answers[:3])
    with pytest.raises(InputError, match="scored against another truth"):
        main(["--compare", str(one), str(other)])
    with pytest.raises(InputError, match="no such file"):
        main(["--compare", str(one), str(tmp_path / "none")])
    found = json.loads((other / "scores.json").read_text())
    (other / "scores.json").write_text(json.dumps(found | {"version": 1}))
    with pytest.raises(InputError, match="version 1; score the answers again"):
        main(["--compare", str(one), str(other)])
    (other / "scores.json").write_text('{"version": 2}')
    with pytest.raises(InputError, match=r"no scores\.json"):
        main(["--compare", str(one), str(other)])


def test_the_report_shows_the_questions_that_lie_beside_the_truth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(tmp_path / "truth_test.jsonl", [truth(i, "yes") for i in range(3)])
    write_jsonl(tmp_path / "a.jsonl", [answer(i, "no") for i in range(3)])
    command = [
        "--truth-file",
        str(tmp_path / "truth_test.jsonl"),
        "--answers-file",
        str(tmp_path / "a.jsonl"),
    ]
    command += ["--output", str(tmp_path / "out")]
    assert main(command) == 0
    assert "the report shows no pictures: name the --question-file" in capsys.readouterr().out
    asked = [{"question_id": i, "image": "gone.jpg", "text": "Is there a so-called crack?"} for i in range(3)]
    write_jsonl(tmp_path / "questions_test.jsonl", asked)
    assert main(command) == 0
    assert "shows no pictures" not in capsys.readouterr().out
    assert "so-called crack" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    write_jsonl(tmp_path / "other.jsonl", [asked[0] | {"question_id": 77}])
    with pytest.raises(InputError, match="none of its question ids"):
        main([*command, "--question-file", str(tmp_path / "other.jsonl")])


def test_the_off_topic_probe(tmp_path: Path, repo: Path) -> None:
    """The script as a user runs it: the same questions for the same seed, which score as they should."""
    command = [sys.executable, "scripts/off_topic_probe.py", "--pictures", "6", "--output"]
    for name, more in (("one", []), ("same", []), ("other", ["--seed", "1"])):
        subprocess.run([*command, str(tmp_path / name), *more], cwd=repo, check=True, capture_output=True)
    texts = {name: (tmp_path / name / "truth.jsonl").read_text() for name in ("one", "same", "other")}
    assert texts["one"] == texts["same"] != texts["other"]
    questions = read_questions(tmp_path / "one" / "questions.jsonl")
    assert all(path.is_file() for path in find_images(questions, tmp_path / "one").values())
    truths = read_jsonl(tmp_path / "one" / "truth.jsonl", Truth)
    for question, fact in zip(questions, truths, strict=True):
        assert question.choices is None or fact.answer in question.choices
    answers = [answer(fact.question_id, f"{fact.answer}.") for fact in truths]
    scores = run(tmp_path, [fact.model_dump(mode="json") for fact in truths], answers)
    assert {task.tuned.metrics[task.headline].value for task in scores.tasks} == {1.0}
    done = subprocess.run([*command, str(tmp_path / "one")], cwd=repo, capture_output=True, text=True)
    assert done.returncode == 2 and "exists already" in done.stderr and done.stderr.count("\n") == 1


def test_what_keeps_the_report_from_its_images_or_its_folder_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, [truth(1, "yes"), truth(2, "no")], [answer(1, "yes"), answer(2, "no")])
    command = ["--answers-file", str(tmp_path / "a.jsonl"), "--truth-file", str(tmp_path / "t.jsonl")]
    write_jsonl(
        tmp_path / "q.jsonl", [{"question_id": n, "image": f"{n}.png", "text": "Is it?"} for n in (1, 2)]
    )
    command += ["--question-file", str(tmp_path / "q.jsonl"), "--output"]
    capsys.readouterr()
    assert main([*command, str(tmp_path / "out")]) == 0
    assert f"the report lacks 2 of 2 pictures, which {tmp_path} does not hold" in capsys.readouterr().out
    with pytest.raises(InputError, match="gone: no such image folder"):
        main([*command, str(tmp_path / "new"), "--image-folder", str(tmp_path / "gone")])
    with pytest.raises(InputError, match="cannot be written"):
        main([*command, str(tmp_path / "t.jsonl" / "out")])
    with pytest.raises(InputError, match="--miss-rate: a share from 0 up to, but not, 1"):
        main([*command, str(tmp_path / "new"), "--miss-rate", "1"])
    assert not (tmp_path / "new").exists()

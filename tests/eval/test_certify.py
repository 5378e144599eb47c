"""The certify command as a user runs it, and what eval.score makes of its decision."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from eval.certify import main
from eval.score import main as score
from eval.scoring.schema import Scores
from llava.common.errors import InputError
from llava.common.files import write_json, write_jsonl
from llava.deciding.decision import Decision, load_decision
from llava.model.run_dir import BaseInfo, RunInfo, data_hashes, write_run_info
from tests.support.score_rows import answer, truth

WORDING = "Is there a defect?"


def rows(number: int, model: str = "tuned", wording: str = WORDING) -> tuple[list[Any], list[Any], list[Any]]:
    """Return truths, questions and answers about `number` pictures, every other with a defect."""
    truths, questions, answers = [], [], []
    for i in range(number):
        shows = i % 2 == 1
        p_yes = round((0.4 + 0.6 * i / number) if shows else 0.5 * i / number, 6)
        truths.append(truth(i, "yes" if shows else "no", task="presence", meta={"about": "defect"}))
        questions.append({"question_id": i, "image": f"{i}.png", "text": wording, "choices": ["yes", "no"]})
        line = answer(i, "Yes" if p_yes > 0.5 else "No", choices={"yes": p_yes, "no": round(1 - p_yes, 6)})
        answers.append(line | {"model_id": model, "prompt": wording})
    return truths, questions, answers


@pytest.fixture
def certify(tmp_path: Path) -> Callable[..., Decision]:
    """Writes the files of so many calibration pictures, and runs the command on them."""

    def run(number: int, *flags: str, model: str = "tuned") -> Decision:
        truths, questions, answers = rows(number, model)
        write_jsonl(tmp_path / "truth_calibration.jsonl", truths)
        write_jsonl(tmp_path / "questions_calibration.jsonl", questions)
        write_jsonl(tmp_path / "a.jsonl", answers)
        for i in range(number):
            Image.new("RGB", (4, 4), (i % 256, i // 256, 7)).save(tmp_path / f"{i}.png")
        command = ["--answers-file", str(tmp_path / "a.jsonl"), "--output", str(tmp_path / "decision.json")]
        command += ["--truth-file", str(tmp_path / "truth_calibration.jsonl"), *flags]
        (tmp_path / "decision.json").unlink(missing_ok=True)
        assert main(command) == 0
        with pytest.raises(InputError, match=r"decision.json exists already"):
            main(command)
        return load_decision(tmp_path / "decision.json")

    return run


def test_a_decision_says_what_it_is_for(
    certify: Callable[..., Decision], capsys: pytest.CaptureFixture[str]
) -> None:
    decision = certify(200, "--false-alarm", "0.2")
    assert decision.certified and decision.false_alarms and decision.false_alarms.certified
    assert (decision.task, decision.about, decision.wordings) == ("presence", "defect", [WORDING])
    assert decision.choices == ("yes", "no")
    assert len(decision.pictures) == 200 and decision.truth.lines == 200
    assert decision.defective.total == decision.sound.total == 100
    printed = " ".join(capsys.readouterr().out.split())
    assert decision.guarantee in printed and "Other cameras" in printed and "--run was not given" in printed
    decision.check_model(model_id="tuned")
    decision.check_wording(WORDING)
    with pytest.raises(InputError, match="not for 'other'"):
        decision.check_model(model_id="other")
    with pytest.raises(InputError, match="certified for the question"):
        decision.check_wording("Is anything broken?")


def test_too_few_pictures_end_well_and_call_nothing_sound(
    certify: Callable[..., Decision], capsys: pytest.CaptureFixture[str]
) -> None:
    decision = certify(40)
    assert not decision.certified and decision.sound_below is None
    assert "59 of them, 39 more than there are" in " ".join(capsys.readouterr().out.split())


def test_it_is_bound_to_the_model_s_weights(
    certify: Callable[..., Decision], tiny_model_dir: Path, repo: Path
) -> None:
    decision = certify(200, "--model-path", str(tiny_model_dir), model="tiny-llava")
    assert decision.fingerprint is not None and decision.fingerprint.startswith("sha256:")
    decision.check_model(fingerprint=decision.fingerprint)
    with pytest.raises(InputError, match="another model"):
        decision.check_model(fingerprint="sha256:0", model_id="tiny-llava")
    with pytest.raises(InputError, match="is of the model 'tuned', --model-path is 'tiny-llava'"):
        certify(200, "--model-path", str(tiny_model_dir))


def test_pictures_that_were_trained_on_are_refused(certify: Callable[..., Decision], tmp_path: Path) -> None:
    """Known by their content: the training had one of them under another name."""
    (tmp_path / "train").mkdir()
    Image.new("RGB", (4, 4), (5, 0, 7)).save(tmp_path / "train" / "other_name.png")
    turns = [{"from": "human", "value": "<image>\n?"}, {"from": "gpt", "value": "yes"}]
    train = tmp_path / "train" / "train.json"
    write_json(train, [{"id": "1", "image": "other_name.png", "conversations": turns}])
    run = tmp_path / "adapter"
    base = BaseInfo(path="b", name="b", fingerprint="f")
    info = RunInfo(base=base, conv_mode="v1", projector_trained=True, lora={}, data=data_hashes([train]))
    write_run_info(run, info)
    with pytest.raises(InputError, match=r"5\.png was trained on"):
        certify(200, "--run", str(run))
    Image.new("RGB", (4, 4), (5, 5, 5)).save(tmp_path / "train" / "other_name.png")
    assert not [line for line in certify(200, "--run", str(run)).limits if "not checked" in line]
    (tmp_path / "train" / "other_name.png").unlink()
    assert any("not checked for 1 picture(s) of" in line for line in certify(200, "--run", str(run)).limits)
    write_json(train, [])  # another file now: nothing can be said
    assert any("was not checked for" in line for line in certify(200, "--run", str(run)).limits)


def test_what_cannot_be_certified_is_refused_in_a_line(
    certify: Callable[..., Decision], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no task 'kind'; --task is one of presence"):
        certify(40, "--task", "kind")
    with pytest.raises(InputError, match="--miss 5: a share between 0 and 1"):
        certify(40, "--miss", "5")
    with pytest.raises(InputError, match=r"does not hold 0\.png; --image-folder"):
        certify(40, "--image-folder", str(tmp_path / "nowhere"))
    (tmp_path / "decision.json").write_text('{"certified": true}')
    with pytest.raises(InputError, match="not a decision of certify"):
        load_decision(tmp_path / "decision.json")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sound_below": 7}, "sound_below: Input should be less than or equal to 1"),
        ({"sound_below": float("nan")}, "sound_below: Input should be a finite number"),
        ({"defect_from": -1}, "defect_from: Input should be greater than or equal to 0"),
        ({"sound_below": 0.9, "defect_from": 0.1}, "sound_below is above defect_from"),
    ],
)
def test_a_decision_that_calls_nearly_everything_sound_is_refused(
    certify: Callable[..., Decision], tmp_path: Path, changed: dict[str, float], message: str
) -> None:
    certify(200)
    file = tmp_path / "decision.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    with pytest.raises(InputError, match=f"not a decision of certify: {message}"):
        load_decision(file)


def test_calibration_answers_without_a_probability_are_refused(
    certify: Callable[..., Decision], tmp_path: Path
) -> None:
    """They would count as pictures with a defect that are never missed."""
    certify(200)
    lines = (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()
    answers = [json.loads(line) for line in lines]
    command = ["--answers-file", str(tmp_path / "a.jsonl"), "--output", str(tmp_path / "other.json")]
    command += ["--truth-file", str(tmp_path / "truth_calibration.jsonl")]
    for metadata, why in (
        ({}, "it was asked without choices"),
        ({"error": "cannot be read"}, "cannot be read"),
    ):
        answers[3]["metadata"] = metadata
        write_jsonl(tmp_path / "a.jsonl", answers)
        with pytest.raises(InputError, match=f"1 of the 200 answers .* '3' .{why}"):
            main(command)
    assert not (tmp_path / "other.json").exists()


def test_answers_to_other_choices_are_refused(certify: Callable[..., Decision], tmp_path: Path) -> None:
    """Whoever applies the decision offers its choices, and other ones have other probabilities."""
    decision = certify(200)
    assert decision.choices == ("yes", "no")
    _, _, answers = rows(200)
    command = ["--answers-file", str(tmp_path / "a.jsonl"), "--output", str(tmp_path / "other.json")]
    command += ["--truth-file", str(tmp_path / "truth_calibration.jsonl")]
    for line in answers:  # in any order and case, as long as all are the same
        line["metadata"]["choices"] = {"No": 0.25, "Yes": 0.75}
    write_jsonl(tmp_path / "a.jsonl", answers)
    assert main(command) == 0
    assert load_decision(tmp_path / "other.json").choices == ("Yes", "No")
    (tmp_path / "other.json").unlink()
    for choices in ({"yes": 0.75, "no": 0.25}, {"Yes": 0.5, "No": 0.25, "no": 0.25}):
        answers[3]["metadata"]["choices"] = choices
        write_jsonl(tmp_path / "a.jsonl", answers)
        with pytest.raises(InputError, match="presence was asked with the choices 'Yes', 'No' and "):
            main(command)
    assert not (tmp_path / "other.json").exists()


def scored(folder: Path, number: int = 100, **more: Any) -> Scores:
    truths, _, answers = rows(number, **more)
    write_jsonl(folder / "t.jsonl", truths)
    write_jsonl(folder / "b.jsonl", answers)
    command = ["--answers-file", str(folder / "b.jsonl"), "--truth-file", str(folder / "t.jsonl")]
    command += ["--decision", str(folder / "decision.json"), "--output", str(folder / "out")]
    assert score(command) == 0
    return Scores.model_validate(json.loads((folder / "out" / "scores.json").read_text(encoding="utf-8")))


def test_score_shows_what_the_decision_does(
    certify: Callable[..., Decision], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    decision = certify(200)
    shown = scored(tmp_path, 102).decision
    assert shown is not None and shown.missed is not None and not shown.own_pictures
    expected = [decision.decide(line["metadata"]["choices"]["yes"]) for line in rows(102)[2][1::2]]
    assert shown.defective.sound == expected.count("sound") and shown.defective.total == 51
    assert shown.missed.value == pytest.approx(expected.count("sound") / 51, abs=1e-6)
    assert "5% at most is promised" in " ".join(capsys.readouterr().out.split())
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert decision.guarantee in page and "called a defect" in page
    assert scored(tmp_path, 200).decision.own_pictures  # type: ignore[union-attr]


def test_score_refuses_another_model_or_wording(certify: Callable[..., Decision], tmp_path: Path) -> None:
    certify(200)
    with pytest.raises(InputError, match="certified for the model 'tuned', not for 'base'"):
        scored(tmp_path, model="base")
    with pytest.raises(InputError, match="certified for the question"):
        scored(tmp_path, wording="Is anything wrong?")

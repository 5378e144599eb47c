"""`llava-inspect curve` and `suspects`: parts by groups, each step by its command, and what comes out."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from llava.common.errors import InputError
from llava.common.files import read_jsonl, write_jsonl
from llava.common.records import Answer, Question, Record, Truth
from llava_inspect import run_commands
from llava_inspect.__main__ import main
from llava_inspect.curve import nested_parts
from llava_inspect.parts import group_of, read_records
from llava_inspect.run_steps import Step
from llava_inspect.suspects import closed_questions, make_folds
from tests.support.photos import write_photos

SHORT = ["max_steps=1", "eval_steps=1", "save_steps=1", "batch_size=2", "eval_generate_samples=0"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Converted photos: 48 to train on, 48 to test on."""
    folder = tmp_path_factory.mktemp("parts")
    photos = write_photos(folder / "photos", 100)
    output = folder / "data"
    splits = ("splits.train=0.48", "splits.val=0.04", "splits.test=0.48")
    assert (
        main(["convert", "--source", str(photos), "--recipe", "insulator", "--output", str(output), *splits])
        == 0
    )
    return output


def do_with(monkeypatch: pytest.MonkeyPatch, do: Callable[[Step], int]) -> list[str]:
    """Have steps done by `do`; returns the list in which their names come to stand."""
    names: list[str] = []

    def run_command_of(step: Step, lock: int) -> int:
        names.append(step.name)
        return do(step)

    monkeypatch.setattr(run_commands, "run_command_of", run_command_of)
    return names


def argument(step: Step, flag: str) -> Path:
    return Path(step.arguments[step.arguments.index(flag) + 1])


def answer(question: Question, text: str, probability: float) -> Answer:
    others = [choice for choice in question.choices or [] if choice != text]
    choices = {choice: (1 - probability) / len(others) for choice in others} | {text: probability}
    return Answer(
        question_id=question.question_id, prompt=question.text, text=text, answer_id="1", model_id="m",
        metadata={"choices": choices} if others else {},
    )  # fmt: skip


# --- curve -------------------------------------------------------------------------------------------


def test_each_part_holds_the_smaller_ones_and_divides_no_group(data: Path) -> None:
    records = read_records(data)
    for number, record in enumerate(records):
        record.meta["group"] = f"pole {number % 24}"
    parts = nested_parts(records, [])
    groups = [{group_of(record) for record in part.records} for part in parts]
    assert [len(part) for part in groups] == [3, 6, 12, 24]
    assert all(small < large for small, large in pairwise(groups))
    assert all(
        [record for record in records if group_of(record) in chosen] == part.records
        for part, chosen in zip(parts, groups, strict=True)
    )
    grown = nested_parts([*records, records[0].model_copy(update={"meta": {"group": "new"}})], [])
    assert len({group_of(record) for record in grown[-2].records} - groups[-2]) <= 1  # the old order stays


def made_of(record: Record, *groups: str) -> Record:
    """Return the record as `convert --synthetic` would write it of a picture made of photos of `groups`."""
    meta = record.meta | {"group": groups[0], "groups": list(groups), "synthetic": True, "source": "made/1"}
    return record.model_copy(update={"id": "made", "image": "images/made.jpg", "meta": meta})


def test_made_pictures_grow_with_their_photos_and_are_not_counted(data: Path) -> None:
    records = read_records(data)
    plain = nested_parts(records, [])
    groups = [{group_of(record) for record in part.records} for part in plain]
    early, late = min(groups[0]), min(groups[2] - groups[1])
    made = [made_of(records[0], early), made_of(records[0], early, late), made_of(records[0], "in no part")]
    parts = nested_parts([*records, *made], [])
    assert [part.title for part in parts] == [part.title for part in plain]
    assert [part.records[len(old.records) :] for part, old in zip(parts, plain, strict=True)] == [
        made[:1],
        made[:1],
        made[:2],
        made[:2],
    ]


def answer_better_with_more(data: Path) -> Callable[[Step], int]:
    """Pretend that a model is right on more of the test photos, the more photos it was trained on."""
    truths = {truth.question_id: truth.answer for truth in read_jsonl(data / "truth_test.jsonl", Truth)}

    def do(step: Step) -> int:
        if step.name.startswith("train"):
            step.output.parent.mkdir(parents=True)
            step.output.touch()
            return 0
        photos = int(step.name.removeprefix("answers photos"))
        questions = read_jsonl(argument(step, "--question-file"), Question)
        images = sorted({str(question.image) for question in questions})
        right = set(images[: round(len(images) * (1 - 1.4 * photos**-0.5))])
        answers = (
            answer(question, truths[question.question_id] if question.image in right else "never", 0.9)
            for question in questions
        )
        write_jsonl(step.output, answers)
        return 0

    return do


def test_the_curve_is_measured_and_continued(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "curve"
    command = ["curve", "--data", str(data), "--output", str(output), *SHORT]
    done = do_with(monkeypatch, answer_better_with_more(data))
    assert main(command) == 0
    result = json.loads((output / "curve.json").read_text(encoding="utf-8"))
    sizes = result["photos"]
    assert done == [f"{step} photos{size}" for size in sizes for step in ("train", "answers")]
    presence = next(curve for curve in result["curves"] if curve["name"] == "presence")
    values = [score["value"] for score in presence["measured"]]
    assert values == sorted(values) and result["photos_expected"] == 2 * sizes[-1]
    assert values[-1] < presence["expected"]["value"] < 1
    assert presence["expected"]["low"] < 1 - 1.4 * (2 * sizes[-1]) ** -0.5 < presence["expected"]["high"]
    said = capsys.readouterr().out
    assert f"With {sizes[-1]} more photos" in said and "\n  presence " in said
    assert f"What would {sizes[-1]} more photos bring?" in (output / "curve.html").read_text(encoding="utf-8")

    shutil.rmtree(output / f"photos{sizes[1]}" / "adapter")  # as after a kill
    done.clear()
    assert main(command) == 0
    assert done == [f"train photos{sizes[1]}"]
    with pytest.raises(InputError, match="was made with other training settings: add --overwrite"):
        main([*command, "epochs=7"])


# --- suspects ----------------------------------------------------------------------------------------


def test_a_fold_is_asked_what_its_model_was_not_trained_on(data: Path) -> None:
    records = read_records(data)
    folds = make_folds(records, 4, data / "train.json")
    by_id = {record.id: record for record in records}
    asked = [question for fold in folds for question in fold.questions]
    assert len({question.question_id for question in asked}) == len(asked)
    assert {question.image for question in asked} == {record.image for record in records}
    for fold in folds:
        trained = {group_of(record) for record in fold.records}
        assert not trained & {group_of(by_id[str(question.question_id)]) for question in fold.questions}
    for question in asked:
        given = by_id[str(question.question_id)].conversations[1].value
        assert question.choices and given in question.choices and "<image>" not in question.text


def test_no_fold_is_asked_about_made_pictures_or_trained_on_those_of_its_photos(data: Path) -> None:
    records = read_records(data)
    first, second = sorted({group_of(record) for record in records})[:2]
    presence = next(record for record in records if record.meta["task"] == "presence")
    made = made_of(presence, first, second)
    folds = make_folds([*records, made], 4, data / "train.json")
    assert all(question.image != made.image for fold in folds for question in fold.questions)
    by_id = {record.id: record for record in records}
    for fold in folds:
        asked = {group_of(by_id[str(question.question_id)]) for question in fold.questions}
        assert (made in fold.records) == (not asked & {first, second})


def test_a_thing_is_asked_once_in_its_first_wording(data: Path) -> None:
    asked = [record for record, _ in closed_questions(read_records(data))]
    things = [(record.image, record.meta["task"], record.meta["about"]) for record in asked]
    assert len(set(things)) == len(things)
    assert {record.meta["task"] for record in asked} >= {"presence", "kind", "presence_of"}


def test_the_contradicted_annotation_comes_first(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {record.id: record.conversations[1].value for record in read_records(data)}
    wrong = next(
        question for record, question in closed_questions(read_records(data)) if record.meta["task"] == "kind"
    )

    def do(step: Step) -> int:
        """Agree with all annotations but one."""
        step.output.parent.mkdir(parents=True, exist_ok=True)
        if step.name.startswith("train"):
            step.output.touch()
            return 0
        answers = []
        for question in read_jsonl(argument(step, "--question-file"), Question):
            text = given[str(question.question_id)]
            if question.question_id == wrong.question_id:
                text = next(choice for choice in question.choices or [] if choice != text)
            answers.append(answer(question, text, 0.8))
        write_jsonl(step.output, answers)
        return 0

    done = do_with(monkeypatch, do)
    output = tmp_path / "suspects"
    command = ["suspects", "--data", str(data), "--output", str(output), *SHORT]
    assert main([*command, "--folds", "2"]) == 0
    assert main(command) == 0  # other folds are others: nothing of the first is taken
    assert len(done) == 4 + 8
    assert main(command) == 0
    assert len(done) == 12
    with (output / "suspects.csv").open(encoding="utf-8-sig", newline="") as file:
        first = next(iter(csv.DictReader(file)))
    assert (first["photo"], first["task"], first["annotation"]) == (
        wrong.source,
        "kind",
        given[str(wrong.question_id)],
    )
    assert first["model"] != first["annotation"] and first["p_model"] == "0.8000"
    listed = json.loads((output / "suspects.json").read_text(encoding="utf-8"))["suspects"]
    assert listed[0]["image"] == wrong.image
    assert f"1  {wrong.source}: {wrong.text} annotated" in capsys.readouterr().out
    page = (output / "suspects.html").read_text(encoding="utf-8")
    assert page.index("data:image/jpeg") < page.index(f"1. {wrong.source}") < page.index("contradicts<")


@pytest.mark.slow
def test_a_small_run_of_suspects_by_the_commands_that_are_printed(data: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        do_with(patch, lambda step: main(shlex.split(run_commands.typed(step.arguments))[1:]))
        folds = ["suspects", "--data", str(data), "--output", str(tmp_path / "suspects"), "--folds", "2"]
        assert main([*folds, *SHORT]) == 0
    listed = json.loads((tmp_path / "suspects" / "suspects.json").read_text(encoding="utf-8"))["suspects"]
    assert len(listed) == len({record.image for record in read_records(data)})
    assert all(abs(sum(answer["probabilities"].values()) - 1) < 0.01 for answer in listed[0]["answers"])


def test_what_cannot_be_checked_is_refused(data: Path, tmp_path: Path) -> None:
    command = ["--data", str(data), "--output", str(tmp_path / "out")]
    with pytest.raises(InputError, match="--folds 1: give 2 or more, and at most"):
        main(["suspects", *command, "--folds", "1"])
    with pytest.raises(InputError, match="no record has a closed list of answers"):
        records = [Record(**record.model_dump(by_alias=True) | {"meta": {}}) for record in read_records(data)]
        make_folds(records, 2, data / "train.json")
    copied = Path(shutil.copytree(data, tmp_path / "data"))
    (copied / "truth_test.jsonl").unlink()
    with pytest.raises(InputError, match=r"no truth_test.jsonl in it, nothing to score"):
        main(["curve", "--data", str(copied), "--output", str(tmp_path / "out")])
    (copied / "train.json").unlink()
    with pytest.raises(InputError, match=r"no train.json in it; name a folder that `convert` wrote"):
        main(["curve", "--data", str(copied), "--output", str(tmp_path / "out")])


@pytest.mark.parametrize("command", ["curve", "suspects"])
def test_an_output_that_is_no_run_is_refused(
    data: Path, tmp_path: Path, command: str, put: Callable[..., Path]
) -> None:
    for log in ("[]", '{"train photos3": 7}', '{"train photos3": {"inputs": []}}'):
        put("out/steps.json", log)
        with pytest.raises(InputError, match=r"steps.json: no log of a run's steps; name another folder"):
            main([command, "--data", str(data), "--output", str(tmp_path / "out")])
    with pytest.raises(InputError, match=r"--output .*steps.json: cannot be written \(.*\); name a folder"):
        main([command, "--data", str(data), "--output", str(tmp_path / "out" / "steps.json")])


def test_a_mistake_in_the_truth_is_said_before_the_trainings(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = Path(shutil.copytree(data, tmp_path / "data"))
    (copied / "truth_test.jsonl").write_text("{}", encoding="utf-8")
    done = do_with(monkeypatch, answer_better_with_more(data))
    with pytest.raises(InputError, match=r"truth_test.jsonl, line 1: question_id"):
        main(["curve", "--data", str(copied), "--output", str(tmp_path / "out"), *SHORT])
    assert not done and not (tmp_path / "out").exists()

"""`python -m eval.novelty`, and `eval.infer --novelty` with what it makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eval import infer, novelty
from llava.common.errors import InputError
from tests.support.small_model import image, save_random_model


@pytest.fixture(scope="module")
def model(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tiny_model_dir, tmp_path_factory.mktemp("models") / "random")


def record(name: str, group: str, kinds: list[str]) -> dict[str, Any]:
    turns = [{"from": "human", "value": "<image>\nIs there a defect?"}, {"from": "gpt", "value": "no"}]
    return {"id": name, "image": name, "conversations": turns, "meta": {"group": group, "kinds": kinds}}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder as convert makes it: 4 training pictures, 6 others in 3 groups, one of them defective."""
    for at in range(12):
        image(at).save(tmp_path / f"{at}.png")
    train = [record(f"{at}.png", str(at), ["rust"]) for at in range(4)]
    val = [record(f"{at}.png", f"pole {at // 2}", ["rust"] if at == 4 else []) for at in range(4, 10)]
    (tmp_path / "train.json").write_text(json.dumps(train + train))
    (tmp_path / "val.json").write_text(json.dumps(val))
    rows = [
        {"question_id": f"{at}/{n}", "image": f"{at}.png", "text": f"{n}?"} for at in (10, 11) for n in (1, 2)
    ]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def make_bank(model: Path, data: Path, *more: str) -> Path:
    bank = data / "bank.safetensors"
    arguments = ["--model-path", str(model), "--data", str(data), "--output", str(bank), "--device", "cpu"]
    assert novelty.main([*arguments, "--vectors", "50", *more]) == 0
    return bank


def infer_arguments(model: Path, data: Path, bank: Path, *more: str) -> list[str]:
    return [
        "--model-path", str(model), "--image-folder", str(data), "--question-file", str(data / "q.jsonl"),
        "--answers-file", str(data / "a.jsonl"), "--max-new-tokens", "2", "--device", "cpu",
        "--novelty", str(bank), *more,
    ]  # fmt: skip


def test_answers_say_how_new_their_picture_is(
    model: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bank = make_bank(model, data)
    said = capsys.readouterr().err
    assert "50 vectors of 4 training pictures, calibrated on val.json: 3 groups" in said
    assert infer.main(infer_arguments(model, data, bank)) == 0
    rows = [json.loads(line) for line in (data / "a.jsonl").read_text().splitlines()]
    found = [row["metadata"]["novelty"] for row in rows]
    assert found[0] == found[1] != found[2] == found[3]  # of the picture, not of the question
    assert all(0.25 <= one["p_value"] <= 1 and one["distance"] > 0 for one in found)
    assert all(one["projection"] for one in found)


def test_the_calibration_split_goes_first(
    model: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = {"question_id": "10/1", "answer": "no", "task": "presence", "type": "yesno", "group": "g"}
    (data / "truth_calibration.jsonl").write_text(json.dumps(truth | {"meta": {"kinds": []}}) + "\n")
    (data / "q.jsonl").rename(data / "questions_calibration.jsonl")
    make_bank(model, data)
    assert "calibrated on truth_calibration.jsonl: 1 groups" in capsys.readouterr().err


def test_another_bank_does_not_continue_a_run(model: Path, data: Path) -> None:
    bank = make_bank(model, data)
    run = infer.describe_run(infer.parse_arguments(infer_arguments(model, data, bank)), None)
    bank.unlink()
    make_bank(model, data, "--vectors", "60")
    assert infer.describe_run(infer.parse_arguments(infer_arguments(model, data, bank)), None) != run


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (["--num-beams", "2"], "leave --num-beams out"),
        (["--novelty", "nowhere"], "nowhere: no such file"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    model: Path, data: Path, more: list[str], problem: str
) -> None:
    (bank := data / "bank").touch()
    with pytest.raises(InputError, match=problem):
        infer.main(infer_arguments(model, data, bank, *more))


def test_a_server_measures_nothing(data: Path) -> None:
    (bank := data / "bank").touch()
    arguments = infer_arguments(data, data, bank)[2:]
    with pytest.raises(InputError, match="--novelty is for a model loaded here"):
        infer.main(
            [*[a for a in arguments if a not in ("--device", "cpu")], "--endpoint", "http://localhost:1"]
        )


def test_made_pictures_are_not_known(data: Path) -> None:
    made = record("3.png", "3", [])
    made["meta"]["synthetic"] = True
    (data / "train.json").write_text(json.dumps([record("0.png", "0", []), made]))
    assert [picture.path.name for picture in novelty.known_pictures(data / "train.json")] == ["0.png"]


def test_training_without_pictures_makes_no_bank(model: Path, data: Path) -> None:
    text_only = record("0.png", "0", []) | {"image": None}
    text_only["conversations"][0]["value"] = "Is there a defect?"
    (data / "train.json").write_text(json.dumps([text_only]))
    with pytest.raises(InputError, match=r"train\.json: nothing in it is about a picture"):
        make_bank(model, data)


def test_what_cannot_be_read_or_written_is_said_before_the_model_is_loaded(data: Path) -> None:
    arguments = ["--model-path", "absent", "--data", str(data), "--output"]
    with pytest.raises(InputError, match=r"train\.json.bank: cannot be written"):
        novelty.main([*arguments, str(data / "train.json" / "bank")])
    (data / "3.png").unlink()
    with pytest.raises(InputError, match=r"train\.json: its picture 3\.png is not in .*; convert again"):
        novelty.main([*arguments, str(data / "bank")])
    assert not list(data.glob("*bank*"))

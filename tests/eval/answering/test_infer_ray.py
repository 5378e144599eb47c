"""`python -m eval.infer --ray`: a Ray of two workers on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from eval.infer import main
from llava.common.errors import InputError
from tests.support.small_model import image, save_random_model
from tests.support.warm import run_warm

pytest.importorskip("ray.data", reason="scripts/setup.sh ray")


@pytest.fixture
def work(tiny_model_dir: Path, tmp_path: Path) -> Path:
    save_random_model(tiny_model_dir, tmp_path / "model")
    (tmp_path / "images").mkdir()
    for index in range(4):
        image(index).save(tmp_path / "images" / f"{index}.png")
    rows: list[dict] = [
        {"question_id": f"{index}/{number}", "image": f"{index}.png", "text": f"What is part {number}?"}
        for number in range(4)
        for index in range(5)  # of the fifth there is no file
    ]
    rows.append({"question_id": 7, "image": None, "text": "Two and two?", "choices": ["four", "five"]})
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def arguments(work: Path, answers: str) -> list[str]:
    """Relative names, as from a shell in `work`."""
    return [
        "--model-path", "model", "--image-folder", "images", "--device", "cpu", "--question-file", "q.jsonl",
        "--answers-file", answers, "--max-new-tokens", "6",
    ]  # fmt: skip


@pytest.mark.slow
def test_two_workers_answer_as_one_process_and_go_on(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)
    main(arguments(work, "whole.jsonl"))
    whole = (work / "whole.jsonl").read_text()

    # what a killed run of one process, with the same flags, left behind
    from eval.infer import describe_run, parse_arguments

    run = describe_run(parse_arguments(arguments(work, "a.jsonl")), None)
    kept = whole.splitlines(keepends=True)[:3]
    marked = kept[0].replace('"text": "', '"text": "kept ')
    (work / "a.jsonl.partial").write_text(json.dumps({"run": run}) + "\n" + marked + "".join(kept[1:]))

    done = run_warm("-m", "eval.infer", *arguments(work, "a.jsonl"), "--ray", "local", "--ray-workers", "2")
    assert done.returncode == 0, done.stderr
    assert "3 answers are there already, 18 to go" in done.stderr and "18/18" in done.stderr
    assert (work / "a.jsonl").read_text() == whole.replace(kept[0], marked)
    assert "4 of them are empty" in done.stderr and "4.png: no such picture" in done.stderr
    assert not (work / "a.jsonl.partial").exists()


def test_what_a_worker_has_against_its_model_comes_back_as_text(work: Path) -> None:
    from eval.answering.cluster import _Worker
    from eval.infer import parse_arguments

    args = parse_arguments([*arguments(work, "a.jsonl"), "--model-path", "nowhere"])
    batch = {"questions": np.array(['[{"question_id": 1, "image": null, "text": "What?"}]'])}
    assert _Worker(args, str(Path.cwd()))(batch) == {
        "answer": [""],
        "problem": ["nowhere: no such model folder"],
    }


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--ray", "127.0.0.1:1"), "--ray 127.0.0.1:1: no cluster can be reached .*refused"),
        (("--ray", "ray://[::1]:1"), "no cluster can be reached"),
        (("--ray", "head:port"), "--ray head:port: no cluster can be reached"),
        (("--ray", "local", "--device", "cuda:1"), "Ray gives each worker its own"),
        (("--ray", "local", "--endpoint", "http://localhost:1"), "with --endpoint"),
    ],
)
def test_what_cannot_be(
    work: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(work)
    with pytest.raises(InputError, match=message):
        main([*arguments(work, "a.jsonl"), *more])
    assert not [path for path in work.iterdir() if "a.jsonl" in path.name]


def test_no_ray_on_this_machine(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether one runs here is not ours to say: a test beside this one may have started it."""

    def nobody(*args: object, **kwargs: object) -> None:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.chdir(work)
    monkeypatch.setattr("ray.init", nobody)
    with pytest.raises(InputError, match=r"--ray auto: no cluster can be reached \(Could not find any"):
        main([*arguments(work, "a.jsonl"), "--ray", "auto"])
    assert not [path for path in work.iterdir() if "a.jsonl" in path.name]

"""`python -m eval.infer` in several processes: a picture with one of them, resumable with another number."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.answering.questions import shard
from eval.infer import main
from llava.common.records import Question
from tests.support.small_model import image, save_random_model
from tests.support.warm import run_as_torchrun

FAILING = """
import itertools, os
from eval import infer
from eval.answering import local
from llava.common.errors import InputError
from llava.common.launch import run_process
answers = local.LocalModel.answers
def failing(self, questions, pictures):
    yield from itertools.islice(answers(self, questions, pictures), 2)
    raise InputError("the second process fails")
if os.environ["RANK"] == "1":
    local.LocalModel.answers = failing
run_process(infer.main)
"""


@pytest.fixture
def work(tiny_model_dir: Path, tmp_path: Path) -> Path:
    save_random_model(tiny_model_dir, tmp_path / "model")
    (tmp_path / "images").mkdir()
    for index in range(5):
        image(index).save(tmp_path / "images" / f"{index}.png")
    rows: list[dict] = [
        {"question_id": f"{index}/{number}", "image": f"{index}.png", "text": f"What is part {number}?"}
        for number in range(4)
        for index in range(5)
    ]
    rows.append({"question_id": 7, "image": None, "text": "What is two and two?"})
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def arguments(work: Path, answers: str) -> list[str]:
    return [
        "--model-path", str(work / "model"), "--image-folder", str(work / "images"), "--device", "cpu",
        "--question-file", str(work / "q.jsonl"), "--answers-file", str(work / answers),
        "--max-new-tokens", "6",
    ]  # fmt: skip


def launch(processes: int, *command: str) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "llava.common.launch", "--standalone", "--nproc-per-node"]
    return subprocess.run(
        [*launcher, str(processes), *command],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def answered(*paths: Path) -> list[str]:
    """The ids in partial files, as text, headers and a torn last line left out."""
    lines = [line for path in paths for line in path.read_text().split("\n")[1:-1]]
    return [str(json.loads(line)["question_id"]) for line in lines]


@pytest.mark.slow
def test_a_failed_run_of_two_goes_on_with_one_or_three(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main(arguments(work, "whole.jsonl"))
    expected = (work / "whole.jsonl").read_bytes()

    (work / "failing.py").write_text(FAILING)
    done = launch(2, str(work / "failing.py"), *arguments(work, "a/a.jsonl"))
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if "error" in line.lower()] == [
        "error: the second process fails"
    ]
    assert "Traceback" not in done.stderr
    parts = sorted((work / "a").iterdir())
    assert [path.name for path in parts] == ["a.jsonl.partial", "a.jsonl.partial-1"]
    first, second = answered(parts[0]), answered(parts[1])
    assert len(second) == 2
    assert not {name.split("/")[0] for name in first} & {name.split("/")[0] for name in second}
    with parts[1].open("ab") as file:
        file.write(b'{"question_id": "torn", "pro')
    shutil.copytree(work / "a", work / "b")

    processes = run_as_torchrun(3, "-m", "eval.infer", *arguments(work, "a/a.jsonl"))
    said = "".join(done.stderr for done in processes)
    assert [done.returncode for done in processes] == [0, 0, 0], said
    missing = 21 - len(first + second)
    assert f"{len(first + second)} answers are there already, {missing} to go" in said
    assert said.count("answering") >= 1 and f"{missing}/{missing}" in said
    assert said.count("21 answers in") == 1  # one process speaks
    assert (work / "a" / "a.jsonl").read_bytes() == expected
    assert len(list((work / "a").iterdir())) == 1

    from llava.inference.engine import Engine

    asked: list[str] = []
    stream = Engine.stream

    def counting(self: Engine, requests: Iterable, **options: Any) -> Iterator:
        for result in stream(self, requests, **options):
            asked.append(str(result.question_id))
            yield result

    monkeypatch.setattr(Engine, "stream", counting)
    assert main(arguments(work, "b/a.jsonl")) == 0
    ids = [str(json.loads(line)["question_id"]) for line in (work / "q.jsonl").read_text().splitlines()]
    assert sorted(asked + first + second) == sorted(ids)
    assert (work / "b" / "a.jsonl").read_bytes() == expected


@pytest.mark.slow
def test_what_is_wrong_for_all_processes_is_told_once(work: Path) -> None:
    processes = run_as_torchrun(
        2, "-m", "eval.infer", *arguments(work, "out/a.jsonl"), "--model-path", "nowhere"
    )
    assert 2 in [done.returncode for done in processes]
    said = "".join(done.stderr for done in processes)
    assert said.count("error:") == 1 and "nowhere: no such model folder" in said
    assert not (work / "out").exists()


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 5))
def test_shares_are_all_questions_once_and_an_image_stays_with_one(images: list[int], parts: int) -> None:
    """Image 0 is a question without a picture."""
    questions = [
        Question(question_id=index, image=f"{image}.png" if image else None, text="What?")
        for index, image in enumerate(images)
    ]
    shards = [shard(questions, parts, index) for index in range(parts)]
    assert sorted(q.question_id for part in shards for q in part) == list(range(len(images)))
    seen = [{name for question in part for name in question.images} for part in shards]
    assert sum(map(len, seen)) == len(set().union(*seen))
    loads = [len(part) + 4 * len(names) for part, names in zip(shards, seen, strict=True)]
    largest = max((4 + images.count(image) for image in images if image), default=1)
    assert max(loads) - min(loads) <= largest

"""eval.infer with pictures, questions and answers on an S3 server on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from eval.answering.endpoint import data_url
from eval.answering.questions import make_answer
from eval.infer import main
from llava.common import photo_cache
from llava.common.errors import InputError
from llava.common.images import open_image
from llava.common.photo_cache import photo_at, use_cache
from llava.common.records import Answer, Question
from tests.support.s3 import BUCKET, s3_server, send
from tests.support.small_model import image


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    with s3_server() as system:
        yield system


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Three pictures with two questions each, and a picture that is absent."""
    folder = tmp_path / "work"
    (folder / "images" / "line 3").mkdir(parents=True)
    names = ["0.png", "line 3/1.jpg", "2.png"]
    for number, name in enumerate(names):
        image(number, (60, 40)).save(folder / "images" / name)
    rows = [
        {"question_id": f"{name}/{text}", "image": name, "text": text, "choices": ["yes", "no"]}
        for name in [*names, "absent.png"]
        for text in ("Is there rust?", "Is there a crack?")
    ]
    (folder / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def command(model: Path, work: Path, cache: Path, *more: str) -> list[str]:
    return [
        *("--model-path", str(model), "--device", "cpu", "--cache-folder", str(cache)),
        *("--image-folder", f"{work}/images", "--question-file", f"{work}/q.jsonl"),
        *("--answers-file", f"{work}/out/a.jsonl", "--max-new-tokens", "4", *more),
    ]


class Model:
    """Answers with the size of the picture; a keyboard interrupt comes after `patience` answers."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.asked: list[str] = []

    def answers(self, questions: Sequence[Question], images: Mapping[str, Path]) -> Iterator[Answer]:
        for question in questions[: self.patience]:
            self.asked.append(str(question.question_id))
            try:
                text, error = f"{open_image(photo_at(images[question.images[0]])).size}", None
            except InputError as problem:
                text, error = "", str(problem)
            yield make_answer(question, "sizes", text, error=error)
        if len(questions) > self.patience:
            raise KeyboardInterrupt


def test_answers_are_those_of_the_same_files_here(
    s3: Any, tiny_model_dir: Path, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    there, cache = send(s3, work, "same"), tmp_path / "cache"
    for folder in (work, there):
        assert main(command(tiny_model_dir, folder, cache)) == 0
    said = capsys.readouterr().err
    assert f"8 answers in s3://{BUCKET}/same/out/a.jsonl" in said
    assert f"s3://{BUCKET}/same/images/absent.png: no such file or folder" in said
    here = [json.loads(line) for line in (work / "out" / "a.jsonl").read_text("utf-8").splitlines()]
    sent = [json.loads(line) for line in s3.cat_file(f"{BUCKET}/same/out/a.jsonl").decode().splitlines()]
    assert [row for row in sent if "error" not in row["metadata"]] == here[:6]
    assert [row["question_id"] for row in sent] == [row["question_id"] for row in here]
    assert not list((cache / "unsent").iterdir())
    with pytest.raises(InputError, match=r"^s3://photos/same/out/a.jsonl exists already; .*--overwrite"):
        main(command(tiny_model_dir, there, cache))


def test_a_run_that_was_stopped_goes_on_from_the_cache_folder(
    s3: Any, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    there, cache = send(s3, work, "stopped"), tmp_path / "cache"
    first, second, third = Model(patience=3), Model(patience=99), Model(patience=99)
    monkeypatch.setattr("eval.infer.load_answering_model", lambda args, processes: first)
    with pytest.raises(KeyboardInterrupt):
        main(command(tmp_path, there, cache))
    (partial,) = (cache / "unsent").iterdir()
    assert str(partial) in capsys.readouterr().err, "it says where the answers are"
    assert not s3.exists(f"{BUCKET}/stopped/out/a.jsonl")

    def fail(source: Path, target: Path) -> None:
        raise InputError(f"{target}: cannot be reached")

    with monkeypatch.context() as patch, pytest.raises(InputError, match="cannot be reached"):
        patch.setattr("eval.infer.load_answering_model", lambda args, processes: second)
        patch.setattr("eval.infer.send_file", fail)
        main(command(tmp_path, there, cache))
    assert len(first.asked) == 3 and len(second.asked) == 5 and not {*first.asked} & {*second.asked}
    monkeypatch.setattr("eval.infer.load_answering_model", lambda args, processes: third)
    assert main(command(tmp_path, there, cache)) == 0
    assert not third.asked and not list((cache / "unsent").iterdir())
    rows = [json.loads(line) for line in s3.cat_file(f"{BUCKET}/stopped/out/a.jsonl").decode().splitlines()]
    assert [row["text"] for row in rows] == ["(60, 40)"] * 6 + [""] * 2


def test_a_picture_is_fetched_when_it_is_asked_about_and_once(
    s3: Any, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, fetched = send(s3, work, "once"), list[str]()
    read_bytes = photo_cache.read_bytes

    def read(address: str) -> bytes:
        fetched.append(address)
        return read_bytes(address)

    monkeypatch.setattr(photo_cache, "read_bytes", read)
    model = Model(patience=2)  # both are about the first picture
    monkeypatch.setattr("eval.infer.load_answering_model", lambda args, processes: model)
    with pytest.raises(KeyboardInterrupt):
        main(command(tmp_path, there, tmp_path / "cache"))
    assert fetched == [f"s3://{BUCKET}/once/images/0.png"]


def test_a_server_is_sent_the_same_picture(s3: Any, work: Path, tmp_path: Path) -> None:
    there = send(s3, work, "served")
    use_cache(tmp_path / "cache", 1)
    for name in ("0.png", "line 3/1.jpg"):
        assert data_url(there / "images" / name) == data_url(work / "images" / name)


def test_what_is_wrong_is_said_before_the_model_is_loaded(s3: Any, work: Path, tmp_path: Path) -> None:
    there, cache = send(s3, work, "wrong"), tmp_path / "cache"
    with pytest.raises(InputError, match=r"^s3://photos/wrong/none: no such image folder$"):
        main([*command(tmp_path, there, cache), "--image-folder", f"{there}/none"])
    with pytest.raises(InputError, match=r"^s3://photos/none.jsonl: no such file"):
        main([*command(tmp_path, there, cache), "--question-file", f"s3://{BUCKET}/none.jsonl"])
    s3.pipe_file(f"{BUCKET}/wrong/bad.jsonl", b'{"question_id": 1, "text": "What?"}\n')
    with pytest.raises(InputError, match=r"^s3://photos/wrong/bad.jsonl, line 1: image"):
        main([*command(tmp_path, there, cache), "--question-file", f"{there}/bad.jsonl"])
    s3.pipe_file(f"{BUCKET}/wrong/out.jsonl", b'{"question_id": 1, "image": "../x.png", "text": "What?"}\n')
    with pytest.raises(InputError, match=r"^'../x.png' is outside s3://photos/wrong/images"):
        main([*command(tmp_path, there, cache), "--question-file", f"{there}/out.jsonl"])

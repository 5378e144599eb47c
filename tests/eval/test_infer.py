"""`python -m eval.infer`: complete, in order, resumable after a kill, clear about bad pictures."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from eval.infer import main
from llava.common.errors import InputError
from llava.inference.engine import Request, Result
from tests.support.commands import run_here
from tests.support.small_model import image, save_random_model
from tests.support.warm import WarmProcess

TEXTS = ["Is there a red circle?", "How many?", "Where is the largest one?", "Describe the picture."]


@pytest.fixture(scope="module")
def model(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tiny_model_dir, tmp_path_factory.mktemp("models") / "random")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder `images` of six pictures and a question file whose order is not the pictures'."""
    (tmp_path / "images").mkdir()
    for index in range(6):
        image(index).save(tmp_path / "images" / f"{index}.png")
    rows: list[dict] = [
        {"question_id": f"{index}/{number}", "image": f"{index}.png", "text": text}
        for number, text in enumerate(TEXTS)
        for index in range(6)
    ]
    rows[0]["choices"] = ["yes", "no"]
    rows.append({"question_id": 7, "image": None, "text": "What\u2028is two and two?"})
    write_questions(tmp_path, rows)
    return tmp_path


def write_questions(work: Path, rows: list[dict]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (work / "q.jsonl").write_text(text, encoding="utf-8")


def arguments(model: Path, work: Path, *more: str) -> list[str]:
    return [
        "--model-path", str(model), "--image-folder", str(work / "images"), "--device", "cpu",
        "--question-file", str(work / "q.jsonl"), "--answers-file", str(work / "out" / "a.jsonl"),
        "--max-new-tokens", "6", *more,
    ]  # fmt: skip


def answers(work: Path, name: str = "a.jsonl") -> list[dict]:
    lines = (work / "out" / name).read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def questions(work: Path) -> list[dict]:
    lines = (work / "q.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def test_lines_are_llavas_and_in_order(model: Path, work: Path) -> None:
    assert main(arguments(model, work)) == 0
    rows = answers(work)
    assert [row["question_id"] for row in rows] == [row["question_id"] for row in questions(work)]
    assert [row["prompt"] for row in rows] == [row["text"] for row in questions(work)]
    assert list(rows[0]) == ["question_id", "prompt", "text", "answer_id", "model_id", "metadata"]
    assert all(row["text"] and row["model_id"] == "random" for row in rows)
    assert len({row["answer_id"] for row in rows}) == len(rows)
    assert sum(rows[0]["metadata"]["choices"].values()) == pytest.approx(1, abs=1e-5)
    assert [path.name for path in (work / "out").iterdir()] == ["a.jsonl"]


def test_a_rerun_is_byte_identical_and_batches_do_not_matter(model: Path, work: Path) -> None:
    main(arguments(model, work))
    first = (work / "out" / "a.jsonl").read_bytes()
    with pytest.raises(InputError, match="exists already"):
        main(arguments(model, work))
    main(arguments(model, work, "--overwrite", "--batch-size", "5"))
    assert (work / "out" / "a.jsonl").read_bytes() == first


@pytest.mark.slow
def test_after_a_kill_exactly_the_missing_questions_are_answered(
    model: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command is killed in the middle; a torn last line is as good as absent."""
    slow = ("--max-new-tokens", "60", "--batch-size", "2")
    whole = arguments(model, work, *slow)
    whole[whole.index("--answers-file") + 1] = str(work / "out" / "whole.jsonl")
    main(whole)

    partial = work / "out" / "a.jsonl.partial"
    process = WarmProcess("-m", "eval.infer", *arguments(model, work, *slow))
    wait_for(lambda: partial.exists() and partial.read_bytes().count(b"\n") > 4, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (work / "out" / "a.jsonl").exists()
    with partial.open("ab") as file:
        file.write(b'{"question_id": "torn", "pro')

    from llava.inference.engine import Engine

    asked: list = []
    stream = Engine.stream

    def counting(self: Engine, requests: Iterable, **options: Any) -> Iterator:
        for result in stream(self, requests, **options):
            asked.append(result.question_id)
            yield result

    monkeypatch.setattr(Engine, "stream", counting)
    kept = [json.loads(line)["question_id"] for line in partial.read_bytes().split(b"\n")[1:-1]]
    assert main(arguments(model, work, *slow)) == 0
    assert len(kept) >= 4 and len(asked) >= 1
    assert sorted(map(str, kept + asked)) == sorted(str(row["question_id"]) for row in questions(work))
    assert (work / "out" / "a.jsonl").read_bytes() == (work / "out" / "whole.jsonl").read_bytes()


def wait_for(condition: Callable[[], bool], process: WarmProcess) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert process.poll() is None, f"ended too early with exit code {process.returncode}"
        assert time.monotonic() < deadline, "waited 90 seconds in vain"
        time.sleep(0.005)


def test_a_partial_of_another_run_is_refused(model: Path, work: Path) -> None:
    main(arguments(model, work))
    done = work / "out" / "a.jsonl"
    partial = work / "out" / "a.jsonl.partial"
    run = {"model": ["other", ""], "questions": "1"}
    partial.write_text(json.dumps({"run": run}) + "\n" + done.read_text(encoding="utf-8"), encoding="utf-8")
    done.unlink()
    with pytest.raises(InputError, match=r"answers of another run \(other model, .*questions"):
        main(arguments(model, work))
    assert "other" in partial.read_text(encoding="utf-8")  # refused, not touched
    partial.write_text("not json\n")
    with pytest.raises(InputError, match="not a partial answers file"):
        main(arguments(model, work))
    assert main(arguments(model, work, "--overwrite")) == 0


def test_a_partial_without_answers_binds_nobody(model: Path, work: Path) -> None:
    """A run that failed at its first batch must not stand in the way of one with better settings."""
    with pytest.raises(InputError, match="beam search"):
        main(arguments(model, work, "--num-beams", "2", "--temperature", "1"))
    assert main(arguments(model, work)) == 0


def test_images_are_opened_a_little_ahead_and_once(
    model: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are, only some wait in memory; all questions about one hold the same object."""
    from eval.answering import local
    from llava.inference.engine import Engine

    for index in range(6, 50):
        image(index, (16, 12)).save(work / "images" / f"{index}.png")
    rows = [
        {"question_id": f"{index}/{number}", "image": f"{index}.png", "text": "What?"}
        for number in range(2)
        for index in range(50)
    ]
    write_questions(work, rows)
    opened: list[Path] = []
    open_image = local.open_image
    monkeypatch.setattr(local, "open_image", lambda path: opened.append(path) or open_image(path))
    asked: list[tuple[str, int]] = []

    def stream(self: Engine, requests: Iterator[Request], **options: Any) -> Iterator[Result]:
        for count, request in enumerate(requests):
            if count == 20:
                time.sleep(0.2)  # the threads have nothing more to do
                assert 10 < len(opened) <= 11 + local.PREFETCHED_GROUPS < 50
            asked.append((str(request.question_id).split("/")[0], id(request.images[0])))
            held.append(request.images[0])
            yield Result(request.question_id, "it")

    held: list = []
    monkeypatch.setattr(Engine, "stream", stream)
    assert main(arguments(model, work)) == 0
    assert len(opened) == 50 and len(asked) == 100
    assert all(asked[place] == asked[place + 1] for place in range(0, 100, 2))
    assert len({name for name, _ in asked}) == len({image for _, image in asked}) == 50


def test_unreadable_images_get_an_empty_answer(
    model: Path, work: Path, capsys: pytest.CaptureFixture
) -> None:
    (work / "images" / "2.png").unlink()
    content = (work / "images" / "3.png").read_bytes()
    (work / "images" / "3.png").write_bytes(content[: len(content) // 2])
    assert main(arguments(model, work)) == 0
    for row in answers(work):
        bad = str(row["question_id"])[:2] in ("2/", "3/")
        assert ("error" in row["metadata"]) == bad
        assert bool(row["text"]) != bad
    said = capsys.readouterr().err
    assert "8 of them are empty" in said and "2.png: no such picture" in said and "cut short" in said


def test_nothing_is_left_when_no_image_can_be_read(model: Path, work: Path) -> None:
    rows = [row for row in questions(work) if row["image"]]
    write_questions(work, rows)
    for path in (work / "images").iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"no question could be answered; the first: .*not a picture"):
        main(arguments(model, work))
    assert list((work / "out").iterdir()) == []


def test_chunks_cover_the_file(model: Path, work: Path) -> None:
    found = []
    for index in range(3):
        args = arguments(model, work, "--num_chunks", "3", f"--chunk_idx={index}", "--overwrite")
        assert main(args) == 0
        found += answers(work)
    assert [row["question_id"] for row in found] == [row["question_id"] for row in questions(work)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question_id": 1, "text": "What?"}, r"q\.jsonl, line 2: image"),
        ({"question_id": 1, "image": "0.png"}, r"q\.jsonl, line 2: text"),
        ({"question_id": 1, "image": "../q.jsonl", "text": "What?"}, "is outside"),
        ({"question_id": 1, "image": "/etc/passwd", "text": "What?"}, "is outside"),
        ({"question_id": 0, "image": "0.png", "text": "What?"}, "0 comes twice"),
    ],
)
def test_bad_question_lines_are_named(model: Path, work: Path, row: dict, message: str) -> None:
    write_questions(work, [{"question_id": 0, "image": "0.png", "text": "What?"}, row])
    with pytest.raises(InputError, match=message):
        main(arguments(model, work))
    assert not (work / "out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--image-folder", "nowhere"), "nowhere: no such image folder"),
        (("--question-file", "nowhere.jsonl"), "nowhere.jsonl: no such file"),
        (("--model-path", "nowhere"), "nowhere: no such model folder"),
        (("--num-chunks", "2", "--chunk-idx", "2"), "not one of the 2 chunks"),
        (("--batch-size", "0"), "--batch-size must be at least 1"),
    ],
)
def test_bad_arguments_are_named(model: Path, work: Path, more: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        main(arguments(model, work, *more))
    assert not (work / "out" / "a.jsonl").exists()


@pytest.mark.parametrize(
    ("flag", "value", "remedy"),
    [
        ("--temperature", "-1", "give 0 (greedy) or a number above"),
        ("--temperature", "nan", "give 0 (greedy) or a number above"),
        ("--top_p", "0", "give a number above 0 and at most 1"),
        ("--num_beams", "0", "give 1 or more"),
        ("--max-new-tokens", "-3", "give 1 or more"),
        ("--max-new-tokens", "many", "invalid int value: 'many'"),
    ],
)
def test_numbers_out_of_range_are_said_before_anything_is_read(flag: str, value: str, remedy: str) -> None:
    files = ["--image-folder", "absent", "--question-file", "absent", "--answers-file", "absent"]
    done = run_here(main, "--model-path", "absent", *files, flag, value)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert flag.replace("_", "-") in done.stderr and remedy in done.stderr


def test_wrong_folder_is_said_before_the_model_is_loaded(work: Path) -> None:
    (work / "empty").mkdir()
    with pytest.raises(InputError, match=r"none of the 6 pictures, such as 0\.png"):
        main(arguments(work / "no-model", work, "--image-folder", str(work / "empty")))


def test_bad_input_is_one_line_and_exit_code_2(work: Path) -> None:
    (work / "q.jsonl").write_text('{"question_id": 1, "text": "What?"}\n')
    command = [sys.executable, "-m", "eval.infer", *arguments(work, work)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "line 1: image" in done.stderr

"""The partial files of a run, wherever a kill or a full disk ended the last write."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.answering.partial import PartialAnswers
from eval.answering.questions import make_answer
from llava.common.errors import InputError
from llava.common.files import to_json
from llava.common.records import Answer, Question

RUN = {"model": ["a", ""], "decoding": [0.0, None]}


def answer(number: int) -> Answer:
    question = Question(question_id=number, image=None, text="What?")
    return make_answer(question, "m", f"a\u2028line é {number}")


def test_a_file_cut_anywhere_holds_its_whole_lines() -> None:
    whole = (to_json({"run": RUN}) + "\n").encode()
    ends = [len(whole)]
    for number in range(3):
        whole += (to_json(answer(number)) + "\n").encode()
        ends.append(len(whole))

    @given(st.integers(0, len(whole)))
    def check(cut: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "a.jsonl"
            (Path(folder) / "a.jsonl.partial").write_bytes(whole[:cut])
            partial = PartialAnswers(path)
            partial.read(RUN)
            kept = list(range(sum(end <= cut for end in ends[1:])))
            assert list(partial.answers) == kept
            with partial.open(RUN):
                partial.add(answer(7))
            again = PartialAnswers(path)
            again.read(RUN)
            assert again.answers == {number: answer(number) for number in [*kept, 7]}

    check()


def test_all_files_are_read_and_each_process_sees_what_the_others_add(tmp_path: Path) -> None:
    path = tmp_path / "out" / "a [1].jsonl"
    first, second = PartialAnswers(path, 0), PartialAnswers(path, 1)
    with first.open(RUN), second.open(RUN):
        first.require_files(2)
        with pytest.raises(InputError, match="of process 2 is not here"):
            first.require_files(3)
        first.add(answer(1))
        second.add(answer(2))
        first.read_others(2)
        assert set(first.answers) == {1, 2}
        second.add(answer(3))
        first.read_others(2)
        assert first.answers[3] == answer(3)
    third = PartialAnswers(path, 5)
    third.read(RUN)
    assert set(third.answers) == {1, 2, 3}
    with pytest.raises(InputError, match="other decoding"):
        PartialAnswers(path).read(RUN | {"decoding": [1.0, None]})
    third.discard()
    assert list(path.parent.iterdir()) == []


def test_a_failure_before_any_answer_leaves_no_file(tmp_path: Path) -> None:
    partial = PartialAnswers(tmp_path / "a.jsonl")
    with pytest.raises(KeyError), partial.open(RUN):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    partial = PartialAnswers(tmp_path / "a.jsonl")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    refused = pytest.raises(InputError, match=r"a\.jsonl\.partial: cannot be written \(No space left")
    with refused, partial.open(RUN):
        partial.add(answer(1))
        monkeypatch.setattr(os, "fsync", full)
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(InputError, match="cannot be written"), PartialAnswers(blocked / "a.jsonl").open(RUN):
        pass


def test_two_runs_do_not_write_to_one_file(tmp_path: Path) -> None:
    """As when a launcher is killed and its processes go on: the next run would write over them."""
    path = tmp_path / "a.jsonl"
    first = PartialAnswers(path)
    with first.open(RUN):
        first.add(answer(1))
        second = PartialAnswers(path)
        second.read(RUN)
        with pytest.raises(InputError, match="a run is still writing to it"), second.open(RUN):
            pass
        first.add(answer(2))
    second.read(RUN)
    assert set(second.answers) == {1, 2}

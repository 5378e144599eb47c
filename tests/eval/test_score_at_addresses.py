"""eval.score with all files and pictures on an S3 server on this machine, and the report sent to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eval.score import main
from eval.scoring.schema import Scores
from llava.common.errors import InputError
from llava.common.files import write_jsonl
from tests.support.s3 import BUCKET, s3_server, send
from tests.support.score_rows import answer, truth
from tests.support.small_model import image


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    with s3_server() as system:
        yield system


def test_scores_and_report_are_those_of_files_here(
    s3: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = tmp_path / "data"
    here.mkdir()
    questions = [{"question_id": i, "image": f"{i}.png", "text": "Rust?"} for i in range(4)]
    write_jsonl(here / "questions_test.jsonl", questions)
    write_jsonl(here / "truth_test.jsonl", [truth(i, "yes" if i % 2 else "no") for i in range(4)])
    write_jsonl(here / "answers.jsonl", [answer(i, "yes") for i in range(4)])
    for number in range(3):
        image(number, (60, 40)).save(here / f"{number}.png")
    there = send(s3, here, "scored")
    outputs = tmp_path / "scores", f"s3://{BUCKET}/scores"
    for data, output in ((here, outputs[0]), (there, outputs[1])):
        files = ["--answers-file", f"{data}/answers.jsonl", "--truth-file", f"{data}/truth_test.jsonl"]
        assert main([*files, "--output", str(output), "--cache-folder", str(tmp_path / "cache")]) == 0
    said = capsys.readouterr().out
    assert f"written to {outputs[1]}/scores.json and {outputs[1]}/report.html" in said
    assert f"the report lacks 1 of 4 pictures, which s3://{BUCKET}/scored does not hold" in said
    sent = {name: s3.cat_file(f"{BUCKET}/scores/{name}") for name in ("scores.json", "report.html")}
    for name, content in sent.items():
        assert content == (tmp_path / "scores" / name).read_bytes()
    assert Scores.model_validate_json(sent["scores.json"]).answers.name == "answers.jsonl"
    with pytest.raises(InputError, match=r"^s3://photos/none.jsonl: no such file"):
        main(["--answers-file", f"s3://{BUCKET}/none.jsonl", *files[2:], "--output", str(tmp_path / "x")])
    with pytest.raises(InputError, match=r"^s3://photos/none: no such image folder"):
        main([*files, "--image-folder", f"s3://{BUCKET}/none", "--output", str(tmp_path / "x")])

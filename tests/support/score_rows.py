"""Lines of truth and answers files, and their scores by the real command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eval.score import main
from eval.scoring.schema import Scores
from llava.common.files import write_jsonl


def truth(question: int | str, answer: str, type_: str = "yesno", **more: Any) -> dict[str, Any]:
    row = {"question_id": question, "answer": answer, "task": type_, "type": type_, "group": f"g{question}"}
    return row | more


def answer(question: int | str, text: str, **metadata: Any) -> dict[str, Any]:
    return {
        "question_id": question,
        "prompt": "?",
        "text": text,
        "answer_id": f"a{question}",
        "model_id": "m",
        "metadata": metadata,
    }


def run(folder: Path, truths: list[Any], answers: list[Any], base: list[Any] | None = None) -> Scores:
    write_jsonl(folder / "t.jsonl", truths)
    write_jsonl(folder / "a.jsonl", answers)
    command = ["--answers-file", str(folder / "a.jsonl"), "--truth-file", str(folder / "t.jsonl")]
    if base is not None:
        write_jsonl(folder / "b.jsonl", base)
        command += ["--baseline-answers", str(folder / "b.jsonl")]
    assert main([*command, "--output", str(folder / "out")]) == 0
    return Scores.model_validate_json((folder / "out" / "scores.json").read_text(encoding="utf-8"))

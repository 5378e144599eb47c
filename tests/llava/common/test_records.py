"""Records of other tools: what changes their meaning is refused, what only informs is not."""

import json
from pathlib import Path
from typing import Any

import pytest

from llava.common.errors import InputError
from llava.common.files import read_json_list, read_jsonl
from llava.common.records import Question, Record

QUESTION, ANSWER = {"from": "human", "value": "<image>\nIs it whole?"}, {"from": "gpt", "value": "yes"}


def record(*turns: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "b", "image": "b.jpg", "conversations": list(turns or (QUESTION, ANSWER))} | more


def text_only(question: str, **more: Any) -> dict[str, Any]:
    return record({"from": "human", "value": question}, ANSWER, image=None, **more)


def read(folder: Path, *records: Any) -> list[Record]:
    file = folder / "train.json"
    file.write_text(json.dumps([record(id="a"), *records]))
    return read_json_list(file, Record)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (text_only("<video>\nWhat?", video="v.mp4"), "it has a `video`"),
        (text_only("<video>\nWhat?"), "turn 0 holds the mark <video>"),
        (text_only("What is heard here?\n<audio>"), "turn 0 holds the mark <audio>"),
        (text_only("<video>What?", videos=["v.mp4"]), "it has a `videos`"),
        (record(audios=["a.wav"]), "it has a `audios`"),
        (record(image=None, images=["b.jpg"]), "it has `images`; call it `image`"),
        (record(system="Answer in one word."), "its `system` is not used"),
        (record(tools='[{"name": "measure"}]'), "its `tools` is not used"),
        (record(rejected={"from": "gpt", "value": "no"}), "it has `rejected`"),
        (record(kto_tag=False), "it has `kto_tag`"),
        (
            record(QUESTION, ANSWER | {"value": "at <bbox>"}, objects={"bbox": [[1, 2, 3, 4]]}),
            "its <bbox> marks",
        ),
        (record(QUESTION, ANSWER | {"weight": 0}), "turn 1 has `weight`: 0"),
        (record(QUESTION, ANSWER | {"loss": False}), "turn 1 has `loss`: False"),
        (record(QUESTION, ANSWER | {"mask": True}), "turn 1 has `mask`: True"),
        (record(QUESTION | {"image": "c.jpg"}, ANSWER), "turn 0 has a `image` of its own"),
    ],
)
def test_what_is_not_read_is_refused(tmp_path: Path, bad: dict, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, bad)
    assert str(caught.value).startswith(f"{tmp_path / 'train.json'}, record 1 (id 'b'): {reason}")


@pytest.mark.parametrize(
    "good",
    [
        record(source="tower 12", width=640, label="broken", weight_kg=3, images=["b.jpg"]),
        record(system="", tools="[]", videos=[], audios=[], objects=[]),
        record(QUESTION | {"markdown": None, "timestamp": 7}, ANSWER | {"weight": 1, "loss": True}),
        text_only("How is <video> closed?\n<video>\n<source src=a></video>"),
        text_only("Which tag plays sound, <audio> or <sound>?"),
    ],
)
def test_what_only_informs_is_passed_over(tmp_path: Path, good: dict) -> None:
    assert len(read(tmp_path, good)) == 2


def test_a_question_about_a_video_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text('{"question_id": 1, "image": null, "video": "v.mp4", "text": "What?"}')
    with pytest.raises(InputError, match=r"questions\.jsonl, line 1: it has a `video`"):
        read_jsonl(file, Question)

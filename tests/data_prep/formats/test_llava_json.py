"""LLaVA's conversation JSON as a source."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_prep.annotations import AnnotatedSource, Conversation
from data_prep.formats import find_reader, llava_json
from data_prep.source_folder import SourceFolder
from llava.common.errors import InputError
from llava.common.files import to_json
from llava.common.records import Record
from tests.support.label_files import conversations_like


def record(*texts: str, image: object = "a.jpg", **more: Any) -> dict[str, Any]:
    turns = [{"from": ("human", "gpt")[number % 2], "value": text} for number, text in enumerate(texts)]
    return {"id": "1", "image": image, "conversations": turns, **more}


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., tuple[AnnotatedSource, list[str]]]:
    """Writes a file beside two images and reads the folder."""
    for image in ("a.jpg", "b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / image)

    def write_and_read(value: object, name: str = "train.json") -> tuple[AnnotatedSource, list[str]]:
        (tmp_path / name).write_text(value if isinstance(value, str) else json.dumps(value), "utf-8")
        return llava_json.read(SourceFolder.scan(tmp_path))

    return write_and_read


def test_conversations_become_talks_of_their_image(read: Callable, tmp_path: Path) -> None:
    records = [
        record("<image>\nBroken?", "yes", meta={"task": "presence", "language": "ko", "group": "line 3"}),
        record("What is it?\n<image>", "A disc.", "Of what?", "Glass.", image=["train/b.png"]),
        record("<image>Whole?", "no", image="images\\a.jpg"),
    ]
    source, problems = read(records)
    assert not problems and not source.notes
    first, second = source.images
    assert first.annotations[0].conversations == (
        Conversation((("Broken?", "yes"),), "presence", "ko"),
        Conversation((("Whole?", "no"),)),
    )
    assert second.annotations[0].conversations == (
        Conversation((("What is it?", "A disc."), ("Of what?", "Glass."))),
    )
    assert (first.group, first.split, second.group) == ("line 3", None, None)
    assert find_reader(SourceFolder.scan(tmp_path))[0] is llava_json


def test_records_that_are_not_about_one_image_are_counted(read: Callable) -> None:
    text_only = record("Hello", "Hi.")
    del text_only["image"]
    records = [
        record("<image>\nq", "a"),
        text_only,
        text_only,
        record("<image><image>q", "a", image=["a", "b"]),
    ]
    source, problems = read(records)
    assert not problems
    assert [note.split(": ")[1] for note in source.notes] == [
        "2 record(s) without a picture left out",
        "1 record(s) with several pictures left out",
    ]


def test_every_bad_record_is_named_with_its_line(read: Callable, tmp_path: Path) -> None:
    out_of_turn = record("<image>\nq", "a")
    out_of_turn["conversations"].reverse()
    records = [
        out_of_turn,
        record("<image>\nq", "a", "and?"),
        record("<image>\nq", " "),
        record("q", "a"),
        record("<image>\nq", "a", "<image> again", "b"),
        record("<image>\nq", "a", image="zzz.jpg"),
        {"id": 5, "image": "a.jpg"},
        7,
        record("<image>\nq", "a", system="Answer in German."),
        record("<image>\nq", "a", image=None, images=["a.jpg"]),
    ]
    _, problems = read("[\n" + ",\n".join(map(json.dumps, records)) + "]")
    start = f"{tmp_path / 'train.json'}, line "
    assert [problem.removeprefix(start) for problem in problems] == [
        "2 (id '1'): turn 0 is from 'gpt', expected 'human'",
        "3 (id '1'): the last turn is from 'human': it needs an answer",
        "4 (id '1'): turn 1 is empty",
        "5 (id '1'): 0 <image> mark(s) in its first question, expected 1",
        "6 (id '1'): turn 2 holds <image>, which marks a picture; take it out",
        f"7 (id '1'): no picture named 'zzz.jpg' in {tmp_path} or below",
        "8 (id 5): has no conversations",
        "9: not a record with named fields",
        "10 (id '1'): its `system` is not used; put what the model needs into the first question, or take it "
        "out",
        "11 (id '1'): it has `images`; call it `image`, a name or a list of names",
    ]


def test_splits_come_from_names_if_there_are_several(read: Callable) -> None:
    read([record("<image>\nq", "a")])
    source, problems = read(json.dumps(record("<image>\nq", "a", image="b.png")), "validation.jsonl")
    assert not problems
    assert [image.split for image in source.images] == ["train", "val"]
    assert any("split val" in note for note in source.notes)


def test_only_conversations_are_taken_for_llava(read: Callable, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no list of records"):
        read({"images": [], "annotations": [], "categories": []}, "coco.json")
    assert llava_json.detect(SourceFolder.scan(tmp_path)) is None
    rows = [{"image": "a.jpg", "question": 'what is "conversations": here?', "answer": "x"}]
    with pytest.raises(InputError, match="no list of records"):
        read(rows, "rows.json")
    source, _ = read([record("<image>\nq", "a")])
    assert any("2 JSON file(s) without conversations passed over" in note for note in source.notes)


def test_a_list_that_is_cut_short_is_a_problem(read: Callable) -> None:
    whole = json.dumps([record("<image>\nq", "a"), record("<image>\nr", "b")], indent=1)
    _, problems = read(whole[:-40])
    assert len(problems) == 1 and "not valid JSON" in problems[0]


def test_what_our_own_records_say_comes_back(read: Callable) -> None:
    ours = Record.model_validate(record("<image>\nBroken?", "yes", meta={"task": "presence", "group": "g"}))
    source, problems = read(to_json([ours], indent=1))
    assert not problems
    assert source.images[0].annotations[0].conversations == (Conversation((("Broken?", "yes"),), "presence"),)


@settings(max_examples=80, suppress_health_check=list(HealthCheck))
@given(
    records=st.lists(conversations_like("a.jpg"), max_size=3),
    junk=st.binary(max_size=20),
)
def test_any_records_are_read_or_refused(
    read: Callable, tmp_path: Path, records: list[Any], junk: bytes
) -> None:
    (tmp_path / "junk.json").write_bytes(b'[{"conversations":' + junk)
    source, problems = read([record("<image>\nq", "a"), *records])
    assert all("\n" not in problem for problem in problems)
    assert any("junk.json" in problem for problem in problems)
    conversations = [
        conversation
        for image in source.images
        for annotation in image.annotations
        for conversation in annotation.conversations
    ]
    assert conversations and all(
        question and answer for conversation in conversations for question, answer in conversation.turns
    )

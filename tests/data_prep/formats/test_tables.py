"""Tables of questions and answers: what is read, what is refused, and where it says so."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_prep.annotations import AnnotatedImage, AnnotatedSource, Conversation, Shape
from data_prep.formats import find_reader, tables
from data_prep.source_folder import SourceFolder
from llava.common import json_stream
from llava.common.errors import InputError
from llava.common.json_stream import stream_items

HEADER = "image,question,answer\n"


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., tuple[AnnotatedSource, list[str]]]:
    """Writes a file beside two images and reads the folder."""

    def write_and_read(name: str | None = None, data: str | bytes = "") -> tuple[AnnotatedSource, list[str]]:
        for image in ("a.jpg", "sub/b.png"):
            (tmp_path / image).parent.mkdir(exist_ok=True)
            if not (tmp_path / image).exists():
                Image.new("RGB", (8, 8)).save(tmp_path / image)
        if name is not None:
            (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
        return tables.read(SourceFolder.scan(tmp_path))

    return write_and_read


def turns_by_image(source: AnnotatedSource) -> dict[str, list[tuple[str, str]]]:
    """Image -> (question, answer) of its single-turn conversations."""
    return {
        image.key: [
            turn
            for annotation in image.annotations
            for conversation in annotation.conversations
            for turn in conversation.turns
        ]
        for image in source.images
    }


ROWS: list[dict[str, Any]] = [
    {"image": "a.jpg", "question": "Broken?", "answer": "yes"},
    {"image": "sub/b.png", "question": "Broken?", "answer": "no"},
    {"image": "a.jpg", "question": 'How many, "really"?', "answer": "2"},
]
EXPECTED = {"a": [("Broken?", "yes"), ('How many, "really"?', "2")], "sub/b": [("Broken?", "no")]}


def test_every_kind_of_file_says_the_same(read: Callable, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")
    pytest.importorskip("datasets")
    from datasets import Dataset

    quoted = 'a.jpg{0}"How many, ""really""?"{0}2\n'
    csv = "image{0}question{0}answer\na.jpg{0}Broken?{0}yes\nsub\\b.png{0}Broken?{0}no\n\n" + quoted
    files: dict[str, str | bytes] = {
        "comma.csv": "\ufeff" + csv.format(","),
        "semicolon.csv": csv.format(";").replace("\n", "\r\n"),
        "tab.tsv": csv.format("\t"),
        "lines.jsonl": "\n".join(map(json.dumps, ROWS)),
        "list.json": json.dumps(ROWS, indent=1),
    }
    for name, data in files.items():
        source, problems = read(name, data)
        assert (turns_by_image(source), problems) == (EXPECTED, []), name
        assert find_reader(SourceFolder.scan(tmp_path))[0] is tables
        (tmp_path / name).unlink()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    assert turns_by_image(read()[0]) == EXPECTED
    (tmp_path / "rows.parquet").unlink()
    Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "saved"), num_shards=2)
    (tmp_path / "saved" / "cache-1.arrow").write_bytes(b"what a mapping left there")
    source, problems = read()
    assert (turns_by_image(source), problems) == (EXPECTED, [])
    assert find_reader(SourceFolder.scan(tmp_path))[0] is tables


def test_columns_by_other_names_and_what_is_not_used(read: Callable) -> None:
    data = "Picture,PROMPT,Response,TASK,Language,id,mood\na,Broken?,예,presence,ko,7,good\n"
    source, problems = read("t.csv", data)
    assert not problems
    assert source.images[0].annotations[0].conversations == (
        Conversation((("Broken?", "예"),), "presence", "ko"),
    )
    assert any("passed over: id, mood" in note for note in source.notes)
    assert source.unannotated and source.unannotated[0].name == "b.png"


def test_labels_boxes_groups_and_splits(read: Callable) -> None:
    data = (
        "image,question,answer,label,x1,y1,x2,y2,group,split\n"
        "a,Where?,here,bird nest,5,1,2,4,line 3,valid\n"
        "a,Broken?,yes,broken; flashover,,,,,line 3,val\n"
        "b,Broken?,no,,,,,,,Train\n"
    )
    source, problems = read("t.csv", data)
    assert not problems
    first, second = source.images
    (annotation,) = first.annotations
    assert annotation.shapes == (Shape("bird nest", (2, 1, 5, 4)),)
    assert annotation.labels == ("broken", "flashover")
    assert (first.group, first.split) == ("line 3", "val")
    assert (second.group, second.split) == (None, "train")
    assert any("1 box(es) with reversed corners" in note for note in source.notes)


def test_names_of_the_tables_give_splits_if_there_are_several(read: Callable) -> None:
    source, _ = read("train.csv", HEADER + "a,Broken?,yes\n")
    assert source.images[0].split is None
    source, problems = read("test-00000-of-00001.csv", HEADER + "b,Broken?,yes\n")
    assert not problems
    assert [image.split for image in source.images] == ["train", "test"]
    _, problems = read("val.csv", HEADER + "b,Whole?,no\n")
    assert len(problems) == 1 and "split 'val'" in problems[0] and "test-00000-of-00001.csv" in problems[0]


def test_a_dataset_dict_has_its_splits(read: Callable, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

    features = Features(
        {"image": Value("string"), "question": Value("string"), "answer": ClassLabel(names=["no", "yes"])}
    )
    parts = {
        split: Dataset.from_list([{"image": name, "question": "Broken?", "answer": number}], features)
        for number, (split, name) in enumerate([("train", "a.jpg"), ("validation", "b.png")])
    }
    DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    source, problems = read()
    assert not problems
    assert [image.split for image in source.images] == ["train", "val"]
    assert turns_by_image(source) == {"a": [("Broken?", "no")], "sub/b": [("Broken?", "yes")]}


def test_every_bad_row_is_named_with_its_line(read: Callable, tmp_path: Path) -> None:
    data = (
        HEADER
        + 'a,"two\nlines",yes\nzzz,Broken?,yes\na,Broken?,\n,Broken?,no\na,Broken?\na,<image> Broken?,no\n'
    )
    _, problems = read("t.csv", data)
    assert [problem.removeprefix(f"{tmp_path / 't.csv'}, ") for problem in problems] == [
        f"line 4: no picture named 'zzz' in {tmp_path} or below",
        "line 5: the answer is empty",
        "line 6: names no picture",
        "line 7: has 2 column(s), the header has 3",
        "line 8: the question holds <image>, which marks a picture; take it out",
    ]
    (tmp_path / "t.csv").unlink()
    lines = ['{"image": "a", "question": "q", "answer": true}', "{", "[1]"]
    _, problems = read("t.jsonl", "\n".join(['{"image": "a", "question": "q", "answer": 3}', "", *lines]))
    assert [
        problem.removeprefix(f"{tmp_path / 't.jsonl'}, ")[: len(start)]
        for problem, start in zip(
            problems,
            ["line 3: the answer is true", "line 4: not valid JSON", "line 5: not a row"],
            strict=True,
        )
    ] == ["line 3: the answer is true", "line 4: not valid JSON", "line 5: not a row"]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"label": "crack", "x1": 1, "y1": 1, "x2": "wide", "y2": 4}, "without a readable x2 (found 'wide')"),
        ({"label": "crack", "x1": 0.1, "y1": 0.1, "x2": 0.5, "y2": 0.5}, "in pixels, not in shares"),
        ({"x1": 1, "y1": 1, "x2": 3, "y2": 4}, "a box needs one label"),
        ({"split": "holdout"}, "split 'holdout' is not one of train, val and test"),
        ({"answer": "half \ud800"}, "lone surrogate"),
        ({"answer": ["yes", "no"]}, "the answer is a list"),
        ({"answer": float("nan")}, "the answer is empty"),
    ],
)
def test_cells_that_cannot_be_used(read: Callable, row: dict[str, Any], why: str) -> None:
    _, problems = read("t.jsonl", json.dumps({"image": "a", "question": "q", "answer": "a"} | row))
    assert len(problems) == 1 and why in problems[0]


def test_an_open_quote_does_not_swallow_rows(read: Callable) -> None:
    _, problems = read("t.csv", HEADER + 'a,Broken?,yes\na,"Broken?,yes\na,Whole?,no\n')
    assert len(problems) == 1 and "line 3" in problems[0] and "quote" in problems[0]


def test_rows_that_are_there_twice_are_kept_once_and_noted(read: Callable) -> None:
    source, _ = read("t.csv", HEADER + "a,Broken?,yes\n" * 3)
    assert turns_by_image(source) == {"a": [("Broken?", "yes")]}
    assert any("2 conversation(s)" in note for note in source.notes)


def test_a_folder_without_a_table_or_images_is_refused(read: Callable, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no table"):
        read("t.csv", "image,label\na,good\n")
    assert tables.detect(SourceFolder.scan(tmp_path)) is None
    empty = tmp_path / "sub" / "empty"
    empty.mkdir()
    (empty / "t.csv").write_text(HEADER + "a,b,c\n")
    with pytest.raises(InputError, match="no pictures"):
        tables.read(SourceFolder.scan(empty))


def test_images_inside_the_table_are_refused_before_they_are_read(read: Callable, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")

    rows = [{"image": {"bytes": b"...", "path": "a.jpg"}, "question": "q", "answer": "a"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    _, problems = read()
    assert len(problems) == 1 and "holds the pictures themselves; save them as files" in problems[0]


def test_without_pyarrow_one_line_says_what_to_install(
    read: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"need pyarrow: .*tables"):
        read()
    assert tables.detect(SourceFolder.scan(tmp_path))


def test_damaged_parquet_is_a_problem_and_no_crash(read: Callable, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")

    file = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS * 50), file)
    whole = file.read_bytes()
    for cut in (3, 40, len(whole) // 2, len(whole) - 5):
        _, problems = read("rows.parquet", whole[:cut])
        assert len(problems) == 1 and str(file) in problems[0], cut


def test_problems_of_one_file_are_counted_when_there_are_too_many(
    read: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_prep.formats.conversations.MAX_PROBLEMS", 3)
    _, problems = read("t.csv", HEADER + "a,Broken?,\n" * 10)
    assert len(problems) == 4 and problems[-1].endswith("7 more like these")


def test_equal_conversations_of_many_images_are_one_object(read: Callable) -> None:
    source, _ = read("t.csv", HEADER + "a,Broken?,yes\nb,Broken?,yes\n")
    first, second = (image.annotations[0].conversations[0] for image in source.images)
    assert first is second


# --- any bytes -------------------------------------------------------------------------------------------

ANY = settings(max_examples=60, suppress_health_check=list(HealthCheck))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.just("a.jpg"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)


def outcome(read: Callable, name: str, data: bytes) -> None:
    """Read or refused in words; anything else is a bug."""
    try:
        source, problems = read(name, data)
    except InputError as error:
        problems = [str(error)]
    else:
        images: tuple[AnnotatedImage, ...] = source.images
        for image in images:
            for conversation in image.annotations[0].conversations:
                assert all(question and answer for question, answer in conversation.turns)
    assert all("\n" not in problem for problem in problems)


@settings(ANY, derandomize=True)  # a crash would be pyarrow's own and end the whole run
@given(
    suffix=st.sampled_from([".parquet", ".arrow"]),
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=9
    ),
)
def test_damaged_bytes_of_arrow_are_read_or_refused(
    read: Callable, tmp_path: Path, suffix: str, changes: list[tuple[float, int]]
) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")

    table = pyarrow.Table.from_pylist(ROWS * 20)
    file = tmp_path / f"rows{suffix}"
    (tmp_path / "state.json").write_text('{"_data_files": [{"filename": "rows.arrow"}]}')
    if suffix == ".parquet":
        pyarrow.parquet.write_table(table, file)
    else:
        with pyarrow.OSFile(str(file), "wb") as out, pyarrow.ipc.new_stream(out, table.schema) as stream:
            stream.write_table(table)
    data = bytearray(file.read_bytes())
    for where, byte in changes:
        data[int(where * len(data))] = byte
    try:
        outcome(read, file.name, bytes(data))
    finally:
        file.unlink()


@ANY
@given(
    name=st.sampled_from(["t.csv", "t.tsv", "t.jsonl", "t.json", "t.parquet"]),
    data=st.binary(max_size=200),
    header=st.booleans(),
)
def test_any_bytes_are_read_or_refused(read: Callable, name: str, data: bytes, header: bool) -> None:
    outcome(read, name, HEADER.encode() + data if header else data)


@ANY
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {},
            optional=dict.fromkeys(
                tables_roles := [
                    "image",
                    "question",
                    "answer",
                    "task",
                    "language",
                    "group",
                    "split",
                    "label",
                    "x1",
                    "y1",
                    "x2",
                    "y2",
                ],
                VALUES,
            ),
        ),
        max_size=3,
    )
)
def test_any_json_rows_are_read_or_refused(read: Callable, rows: list[dict[str, Any]]) -> None:
    first = dict.fromkeys(tables_roles) | ROWS[0]
    outcome(read, "t.json", json.dumps([first, *rows]).encode())


@ANY
@given(
    value=st.lists(VALUES, max_size=4),
    chunk=st.integers(1, 40),
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
)
def test_a_json_list_in_pieces_is_the_same_list(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    value: list[Any],
    chunk: int,
    indent: int | None,
    ascii_only: bool,
) -> None:
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    file = tmp_path / "list.json"
    file.write_text(json.dumps(value, indent=indent, ensure_ascii=ascii_only), encoding="utf-8")
    items = list(stream_items(file))
    assert repr([item for _, item, _ in items]) == repr(value)
    assert all(why is None for _, _, why in items)


@ANY
@given(value=st.lists(VALUES, max_size=4), chunk=st.integers(1, 40), data=st.data())
def test_a_broken_json_list_is_told_from_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: list[Any], chunk: int, data: st.DataObject
) -> None:
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    raw = bytearray(json.dumps(value).encode())
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "list.json").write_bytes(raw)
    try:
        whole = json.loads(bytes(raw).decode("utf-8-sig"))
    except ValueError:
        whole = None
    items = list(stream_items(tmp_path / "list.json"))
    if isinstance(whole, list):
        assert repr([item for _, item, _ in items]) == repr(whole)
    else:
        assert items[-1][2]


def test_json_lines_and_lists_say_the_line(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text('[\n {"a":\n  1},\n\n {"a": 2}\n {"a": 3}]')
    assert list(stream_items(tmp_path / "list.json")) == [
        (2, {"a": 1}, None),
        (5, {"a": 2}, None),
        (6, None, "not valid JSON (expected a comma, found '{')"),
    ]
    deep = "[" * 100_000
    (tmp_path / "deep.json").write_text(deep)
    assert "nested too deeply" in str(list(stream_items(tmp_path / "deep.json")))
    (tmp_path / "long.jsonl").write_text("9" * 5000)
    assert "thousands of digits" in str(list(stream_items(tmp_path / "long.jsonl")))


def test_a_missing_image_is_not_its_namesake(read: Callable) -> None:
    rows = "sub/b.png,Broken?,no\nother/b.png,Broken?,yes\n./sub/b.png,Old?,no\n"
    source, problems = read("rows.csv", HEADER + rows)
    assert len(problems) == 1 and "line 3: 'sub/b.png' and 'other/b.png' would both be" in problems[0]
    assert turns_by_image(source) == {"sub/b": [("Broken?", "no"), ("Old?", "no")]}

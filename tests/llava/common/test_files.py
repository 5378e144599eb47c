"""What reading JSON makes of files that Python alone would stumble over."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.common.errors import InputError
from llava.common.files import atomic_folder, atomic_path, read_json, read_jsonl, write_json, write_jsonl
from llava.common.records import Question

TEXTS = st.text(st.characters() | st.sampled_from("\\\ud800\udc00\U0001f600"))
VALUES = st.recursive(TEXTS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"a": ', "line 1: not valid JSON"),
        (b'"\xe9"', r"not UTF-8 text \(byte 1\); save it as UTF-8"),
        (b"[" * 100_000 + b"]" * 100_000, "JSON that cannot be used"),
        (b"9" * 5000, "JSON that cannot be used"),
        (b'{"a":\n "half \\uD83d"}', r"line 2: \\uD83d is half of a character; write it as UTF-8"),
        (b'{"\\udc00": 1}', r"line 1: \\udc00 is half"),
        (b'"\\ude00\\ud83d"', r"\\ude00 is half"),
        (b'"\\\\\\ud83d"', r"\\ud83d is half"),
    ],
)
def test_json_that_cannot_be_used_is_one_line(tmp_path: Path, text: bytes, message: str) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(text)
    with pytest.raises(InputError, match=message) as caught:
        read_json(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["\U0001f600", "\\ud83d", "C:\\ud800\\", "\ud7ff\ue000", "\0"])
def test_what_only_looks_like_half_a_character_is_read(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.json"
    for ascii_only in (True, False):
        file.write_text(json.dumps({text: [text]}, ensure_ascii=ascii_only), encoding="utf-8")
        assert read_json(file) == {text: [text]}


@given(VALUES)
def test_what_is_read_can_be_written(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    file = tmp_path_factory.getbasetemp() / "value.json"
    file.write_text(json.dumps(value), encoding="utf-8")
    whole = json.loads(json.dumps(value))  # two halves side by side are a whole
    try:
        json.dumps(whole, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        with pytest.raises(InputError, match="half of a character"):
            read_json(file)
    else:
        assert read_json(file) == whole


@pytest.mark.parametrize("meta", ["[" * 5000 + "]" * 5000, "9" * 5000, '"\\ud800"', '"\\udc00"'])
def test_json_lines_that_cannot_be_used_are_named(tmp_path: Path, meta: str) -> None:
    file = tmp_path / "a.jsonl"
    good = '{"question_id": 1, "image": "a.jpg", "text": "?", "category": "c"}'
    file.write_text(good + "\n" + good.replace('"c"', meta) + "\n")
    with pytest.raises(InputError, match=r"a\.jsonl, line 2: ") as caught:
        read_jsonl(file, Question)
    assert "\n" not in str(caught.value)


@given(value=VALUES | st.text(st.characters(categories=["Cs", "Ll"])))
def test_what_is_written_is_json_of_the_value(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    """Also where a text holds half of a surrogate pair, which JSON can and UTF-8 cannot."""
    file = tmp_path_factory.getbasetemp() / "written.json"
    write_json(file, value)
    assert json.loads(file.read_text(encoding="utf-8")) == json.loads(json.dumps(value))


@pytest.mark.parametrize("write", [write_json, lambda path, value: write_jsonl(path, [value])])
def test_what_cannot_be_written_is_one_line(tmp_path: Path, write: Callable[[Path, Any], None]) -> None:
    (tmp_path / "file").write_text("here")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"file/a\.json: cannot be written \("):
        write(tmp_path / "file" / "a.json", {})
    with pytest.raises(InputError, match="folder is a folder; name a file to write"):
        write(tmp_path / "folder", {})
    with pytest.raises(InputError, match="cannot be written"), atomic_folder(tmp_path / "file" / "b"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    refused = pytest.raises(InputError, match=r"a\.json: cannot be written \(No space left on device\)")
    with refused, atomic_path(tmp_path / "a.json"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []

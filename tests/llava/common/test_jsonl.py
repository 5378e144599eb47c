"""JSONL files that stay files: the same lines and the same errors as of those that are held."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from llava.common.errors import InputError
from llava.common.files import read_jsonl, sha256
from llava.common.jsonl import Chosen, JsonlFile, LinesById


class Row(BaseModel):
    name: str


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
ends = st.sampled_from(["\n", "\r\n", "\n\n", "\n  \n"])


def written(folder: Path, text: str) -> Path:
    path = folder / "rows.jsonl"
    path.write_bytes(text.encode())
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(names, ends), max_size=8), st.sampled_from(["", "\ufeff", "\n"]), st.booleans())
def test_lines_are_those_of_the_file_in_any_order(
    tmp_path: Path, rows: list[tuple[str, str]], start: str, ends_alone: bool
) -> None:
    text = start + "".join(Row(name=name).model_dump_json() + end for name, end in rows)
    path = written(tmp_path, text if ends_alone else text.rstrip())
    lines = JsonlFile(path, Row)
    held = read_jsonl(path, Row)
    assert list(lines) == held and len(lines) == len(held) and lines.sha256 == sha256(path)
    assert [lines[row] for row in reversed(range(len(lines)))] == held[::-1]
    assert list(lines[1::2]) == held[1::2]
    assert list(zip(lines, lines, strict=True)) == list(zip(held, held, strict=True))


@pytest.mark.parametrize("bad", [b"{", b'{"name": 7}', b'{"name": "\xff"}', b"[]", b"7"])
def test_a_bad_line_is_named_as_before(tmp_path: Path, bad: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"name": "a"}\n\n \n' + bad + b'\n{"name": "b"}\n')
    with pytest.raises(InputError) as held:
        read_jsonl(path, Row)
    with pytest.raises(InputError) as found:
        list(JsonlFile(path, Row))
    assert str(found.value) == str(held.value)


@pytest.mark.parametrize("name", ["absent.jsonl", "."])
def test_a_file_that_cannot_be_read_is_named_as_before(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError) as held:
        read_jsonl(tmp_path / name, Row)
    with pytest.raises(InputError) as found:
        JsonlFile(tmp_path / name, Row)
    assert str(found.value) == str(held.value)


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    """Its lines cannot be read again."""
    read, write = os.pipe()
    os.close(write)
    with pytest.raises(InputError, match="cannot be read"):
        JsonlFile(Path(f"/dev/fd/{read}"), Row)
    os.close(read)


def test_a_file_that_takes_its_name_changes_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, '{"name": "old"}\n')
    lines = JsonlFile(path, Row)
    other = tmp_path / "other.jsonl"
    other.write_text("nonsense")
    other.replace(path)
    assert lines[0].name == "old"


def test_chosen_lines_and_lines_by_id(tmp_path: Path) -> None:
    lines = JsonlFile(written(tmp_path, "".join(f'{{"name": "{name}"}}\n' for name in "abcd")), Row)
    chosen = Chosen(lines, [3, 1])
    assert [row.name for row in chosen] == ["d", "b"] and len(chosen) == 2 and chosen[1].name == "b"
    assert [row.name for row in chosen[:1]] == ["d"]
    by_id = LinesById(lines, {"x": 2, "y": 0})
    assert by_id["x"].name == "c" and by_id.get("z") is None
    assert "y" in by_id and list(by_id) == ["x", "y"] and len(by_id) == 2

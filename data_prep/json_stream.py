"""JSON lists and JSON lines read item by item, so that a file of a million records needs room for one.

An item is `(line, value, why)`: the number of the line it begins on (the first is 1), what it holds, and
None; where it cannot be read, None and the reason in a few words.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from llava.common.errors import InputError

Item = tuple[int, Any, str | None]

LINES_SUFFIX = ".jsonl"
_CHUNK = 1 << 20  # characters
_MARGIN = 16  # an escape or a number cut by the end of what is in memory is reported so near to it
_SPACE = " \t\r\n"


def stream_items(path: Path) -> Iterator[Item]:
    """The records of `path`: a line each if it is a .jsonl file (empty ones skipped), else of a JSON list.

    After a bad line the next is read; a bad record of a list is the last item. InputError if the file
    cannot be opened.
    """
    try:
        yield from _lines(path) if path.suffix.lower() == LINES_SUFFIX else _list(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def stream_records(path: Path) -> Iterator[tuple[int, Any]]:
    """(line, value) of every record; InputError naming the file and line of one that is not JSON."""
    for line, value, why in stream_items(path):
        if why is not None:
            raise InputError(f"{path}, line {line}: {why}")
        yield line, value


def _lines(path: Path) -> Iterator[Item]:
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                if text.strip():
                    yield number, json.loads(text), None
            except (ValueError, RecursionError) as error:
                yield number, None, _why(error)


def _list(path: Path) -> Iterator[Item]:
    with path.open(encoding="utf-8-sig") as file:
        window = _Window(file)
        try:
            if window.next_mark() != "[":
                yield window.line, None, "expected a JSON list of records"
                return
            window.at += 1
            if window.next_mark() == "]":
                window.at += 1
            else:
                while True:
                    window.next_mark()
                    line = window.line
                    yield line, window.value(), None
                    mark = window.next_mark()
                    window.at += 1
                    if mark == "]":
                        break
                    if mark != ",":
                        cut = "the list is cut short" if not mark else f"expected a comma, found {mark!r}"
                        yield window.line, None, f"not valid JSON ({cut})"
                        return
            if window.next_mark():
                yield window.line, None, "not valid JSON (text after the list)"
        except (ValueError, RecursionError) as error:
            yield window.line, None, _why(error)


def _why(error: ValueError | RecursionError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8 text; save the file as UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON ({error.msg})"
    if isinstance(error, RecursionError):
        return "not usable JSON (brackets nested too deeply)"
    return "not usable JSON (a number of thousands of digits)"  # Python's own limit


class _Window:
    """The part of a text file that is in memory. `at` is the next character, `line` its line's number."""

    def __init__(self, file: TextIO) -> None:
        self.at = 0
        self.line = 1
        self._file = file
        self._text = ""
        self._counted = 0  # up to where newlines are in `line`
        self._ended = False

    def next_mark(self) -> str:
        """Move over white space to the next character; "" at the end of the file."""
        while True:
            while self.at < len(self._text):
                if self._text[self.at] not in _SPACE:
                    self._count()
                    return self._text[self.at]
                self.at += 1
            if self._ended:
                self._count()
                return ""
            self._read_on()

    def value(self) -> Any:
        """The JSON value that begins here. JSONDecodeError, ValueError or RecursionError if none does."""
        decoder = json.JSONDecoder()
        while True:
            try:
                value, end = decoder.raw_decode(self._text, self.at)
                if end < len(self._text) - _MARGIN or self._ended:  # else a number might go on
                    self.at = end
                    return value
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated") or error.pos >= len(self._text) - _MARGIN
                if self._ended or not cut:
                    raise
            self._read_on()

    def _count(self) -> None:
        self.line += self._text.count("\n", self._counted, self.at)
        self._counted = self.at

    def _read_on(self) -> None:
        self._count()
        # As much again as is kept, so that a record longer than a chunk is not tried at every chunk.
        kept = self._text[self.at :]
        more = self._file.read(max(_CHUNK, len(kept)))
        self._ended = not more
        self._text = kept + more
        self.at = self._counted = 0

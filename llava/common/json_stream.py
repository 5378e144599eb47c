"""Read JSON lists and JSON lines item by item, so that a file of a million records needs room for one.

An item is `(line, value, error)`: the number of the line it begins on (the first is 1), what it holds, and
None; where it cannot be read, None and the reason in a few words.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, TextIO

from llava.common.errors import InputError

StreamItem = tuple[int, Any, str | None]

LINES_SUFFIX = ".jsonl"
_CHUNK = 1 << 20  # characters
_MARGIN = 16  # an escape or a number cut by the end of what is in memory is reported so near to it
_SPACE = " \t\r\n"


def stream_items(path: Path) -> Iterator[StreamItem]:
    """Yield the records of `path`: the lines of a .jsonl file (empty ones skipped), else of a JSON list.

    After a bad line the next is read; a bad record of a list is the last item. InputError if the file cannot
    be opened.
    """
    try:
        yield from _lines(path) if path.suffix.lower() == LINES_SUFFIX else _list(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def stream_records(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield (line, value) of every record. InputError naming the file and line of one that is not JSON."""
    for line, value, error in stream_items(path):
        if error is not None:
            raise InputError(f"{path}, line {line}: {error}")
        yield line, value


def _lines(path: Path) -> Iterator[StreamItem]:
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                if text.strip():
                    yield number, json.loads(text), None
            except (ValueError, RecursionError) as error:
                yield number, None, _describe(error)


def _list(path: Path) -> Iterator[StreamItem]:
    with path.open(encoding="utf-8-sig") as file:
        window = _Window(file)
        try:
            if window.next_character() != "[":
                yield window.line, None, "expected a JSON list of records"
                return
            window.position += 1
            if error := (yield from _list_items(window)):
                yield window.line, None, error
            elif window.next_character():
                yield window.line, None, "not valid JSON (text after the list)"
        except (ValueError, RecursionError) as error:
            yield window.line, None, _describe(error)


def _list_items(window: _Window) -> Generator[StreamItem, None, str | None]:
    """Yield the items up to the end of the list. Returns the reason if it has no end, else None."""
    if window.next_character() == "]":
        window.position += 1
        return None
    while True:
        window.next_character()
        line = window.line
        yield line, window.read_value(), None
        character = window.next_character()
        window.position += 1
        if character == "]":
            return None
        if character != ",":
            fault = f"expected a comma, found {character!r}" if character else "the list is cut short"
            return f"not valid JSON ({fault})"


def _describe(error: ValueError | RecursionError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8 text; save the file as UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON ({error.msg})"
    if isinstance(error, RecursionError):
        return "not usable JSON (brackets nested too deeply)"
    return "not usable JSON (a number of thousands of digits)"  # Python's own limit


class _Window:
    """The part of a text file that is in memory.

    `position` is that of the next character in it, `line` the number of the line that character is on.
    """

    def __init__(self, file: TextIO) -> None:
        self.position = 0
        self.line = 1
        self._file = file
        self._text = ""
        self._count_warning = 0  # the position up to which newlines are counted in `line`
        self._ended = False

    def next_character(self) -> str:
        """Move over white space to the next character and return it; "" at the end of the file."""
        while True:
            while self.position < len(self._text):
                if self._text[self.position] not in _SPACE:
                    self._count_lines()
                    return self._text[self.position]
                self.position += 1
            if self._ended:
                self._count_lines()
                return ""
            self._read_more()

    def read_value(self) -> Any:
        """Return the JSON value that begins at the position, and move behind it.

        JSONDecodeError, ValueError or RecursionError if none does.
        """
        decoder = json.JSONDecoder()
        while True:
            try:
                value, end = decoder.raw_decode(self._text, self.position)
                if end < len(self._text) - _MARGIN or self._ended:  # else a number might go on
                    self.position = end
                    return value
            except json.JSONDecodeError as error:
                is_cut = error.msg.startswith("Unterminated") or error.pos >= len(self._text) - _MARGIN
                if self._ended or not is_cut:
                    raise
            self._read_more()

    def _count_lines(self) -> None:
        self.line += self._text.count("\n", self._count_warning, self.position)
        self._count_warning = self.position

    def _read_more(self) -> None:
        self._count_lines()
        # As much again as is kept, so that a record longer than a chunk is not tried at every chunk.
        kept = self._text[self.position :]
        more = self._file.read(max(_CHUNK, len(kept)))
        self._ended = not more
        self._text = kept + more
        self.position = self._count_warning = 0

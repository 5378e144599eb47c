"""The table of encoded records that all processes of a node share: what is needed of them while training,
memory-mapped, an image as one token.

Columns of a record: `record_ids`; `texts`, the record as JSON; `ids`; `spans`, the start and end of each run
of supervised tokens; `pictures`, the numbers of its images; `picture_at` and `picture_tokens`, as in
`EncodedRecord`. Columns of an image: `names`; `files`, its `ImageFacts`. Columns of an example: `members`,
its records; `group_lengths`, the tokens of each of its groups where all of its records are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llava.common.records import Record
from llava.processing.text import CompactConversation
from llava.processing.vision import Size
from llava.train.data.columns import ColumnWriter, Ragged, RaggedWriter, read_column
from llava.train.data.image_files import ImageFacts
from llava.train.data.packing import IGNORE, EncodedRecord
from llava.train.data.shards import Place

FORMAT = 1
"""Is part of what a table is known by: another number makes tables anew."""
_RAGGED: dict[str, type] = {
    "record_ids": np.uint8,
    "texts": np.uint8,
    "ids": np.int32,
    "spans": np.int32,
    "pictures": np.int32,
    "picture_at": np.int32,
    "picture_tokens": np.int32,
}


class RecordTable:
    """Reads the records of a table's folder; their order is that of the file they come from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        columns = {name: Ragged(folder, name) for name in _RAGGED}
        self._record_ids, self._texts = columns["record_ids"], columns["texts"]
        self._ids, self._spans = columns["ids"], columns["spans"]
        self._pictures = columns["pictures"]
        self._picture_at, self._picture_tokens = columns["picture_at"], columns["picture_tokens"]
        self._names = Ragged(folder, "names")
        self.files = read_column(folder / "files.npy").reshape(-1, len(ImageFacts._fields))
        self.members = Ragged(folder, "members")
        self.group_lengths = Ragged(folder, "group_lengths")
        self.lengths = read_column(folder / "lengths.npy")
        """(records,) int32: the tokens of each record."""
        self.supervised = read_column(folder / "supervised.npy")
        """(records,) int32: how many of them are learned."""
        self.image_counts = self._pictures.lengths()
        """(records,) int64: how many images each has."""

    def __reduce__(self) -> Any:
        return RecordTable, (self.folder,)  # another process maps the same files

    def __len__(self) -> int:
        return len(self._ids)

    def record(self, index: int) -> Record:
        return Record.model_validate_json(self._texts[index].tobytes())

    def record_id(self, index: int) -> str:
        return self._record_ids.text(index)

    def encoded(self, index: int) -> EncodedRecord:
        """Return a record as tokens; its images' keys are those of `image_keys`."""
        ids = self._ids[index]
        labels = np.full(len(ids), IGNORE, dtype=np.int32)
        spans = self._spans[index].tolist()
        for start, end in zip(spans[::2], spans[1::2], strict=True):
            labels[start:end] = ids[start:end]
        record_id = self.record_id(index)
        names = [self._names.text(number) for number in self._pictures[index].tolist()]
        return EncodedRecord(
            record_id,
            ids,
            labels,
            tuple(image_keys(record_id, names)),
            tuple(self._picture_at[index].tolist()),
            tuple(self._picture_tokens[index].tolist()),
        )

    def members_of(self, example: int) -> list[int]:
        """Return the records of an example."""
        return self.members[example].tolist()

    @property
    def images(self) -> int:
        """How many different images there are."""
        return len(self._names)

    def image_name(self, number: int) -> str:
        return self._names.text(number)

    def image_size(self, number: int) -> Size:
        return int(self.files[number, 2]), int(self.files[number, 3])

    def image_place(self, number: int) -> Place:
        """Return where in its file an image lies."""
        return Place(*self.files[number, 4:].tolist())

    def images_of(self, index: int) -> list[int]:
        """Return the numbers of a record's images, in the order of their tokens."""
        return self._pictures[index].tolist()


def image_keys(record_id: str, names: Sequence[str]) -> dict[str, str]:
    """Map a key to the name of each of a record's images. The image of a record with one has its name as
    key, for all of its records share it; in a record of several it has a key of its own, for it may be
    augmented otherwise."""
    if len(names) == 1:
        return {names[0]: names[0]}
    return {f"{record_id}#{number}": name for number, name in enumerate(names)}


class TableWriter:
    """Writes a table's folder, the records first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._columns = {name: RaggedWriter(folder, name, dtype) for name, dtype in _RAGGED.items()}
        self._lengths = ColumnWriter(folder / "lengths.npy", np.int32)
        self._supervised = ColumnWriter(folder / "supervised.npy", np.int32)

    def add_records(self, records: Sequence[tuple[Record, CompactConversation, Sequence[int]]]) -> None:
        """Append records, each encoded and with the numbers of its images."""
        encoded = [conversation for _, conversation, _ in records]
        columns: dict[str, list[Any]] = {
            "record_ids": [record.id.encode() for record, _, _ in records],
            "texts": [_text(record) for record, _, _ in records],
            "ids": [conversation.input_ids for conversation in encoded],
            "spans": [_spans(conversation.supervised) for conversation in encoded],
            "pictures": [numbers for _, _, numbers in records],
            "picture_at": [conversation.image_at for conversation in encoded],
            "picture_tokens": [conversation.image_tokens for conversation in encoded],
        }
        for name, rows in columns.items():
            self._columns[name].add(rows)
        self._lengths.add([len(conversation) for conversation in encoded])
        self._supervised.add([int(conversation.supervised.sum()) for conversation in encoded])

    def add_images(self, names: Sequence[str], files: Sequence[ImageFacts]) -> None:
        """Write all images."""
        writer = RaggedWriter(self._folder, "names", np.uint8)
        writer.add([name.encode() for name in names])
        writer.close()
        column = ColumnWriter(self._folder / "files.npy", np.int64)
        column.add(np.asarray(files, dtype=np.int64).ravel())
        column.close()

    def close(self) -> None:
        for ragged in self._columns.values():
            ragged.close()
        self._lengths.close()
        self._supervised.close()


def _text(record: Record) -> bytes:
    return record.model_dump_json(by_alias=True, include=set(Record.model_fields)).encode()


def _spans(supervised: np.ndarray) -> list[int]:
    """Return the start and end of each run of true values, (2 * runs,)."""
    changes = (np.flatnonzero(supervised[1:] != supervised[:-1]) + 1).tolist()
    first, last = bool(supervised[0]), bool(supervised[-1])
    return [*([0] if first else []), *changes, *([len(supervised)] if last else [])]

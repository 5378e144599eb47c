"""Encode a file of records once for all processes of a node and for every resumption: the token cache.

A table (`record_table.py`) lies in a folder named by a hash of all that its content follows from: the
records, the tokenizer, the template, what decides the number of an image's tokens, packing and `max_length`.
It is taken as it is while the images' files have the size and time that they had.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from llava.common.errors import InputError
from llava.common.files import atomic_folder
from llava.common.records import Record
from llava.common.remote import address_of
from llava.conversation import ChatTurns
from llava.processing.text import CompactConversation, RecordProcessor, RenderedConversation
from llava.processing.vision import Size
from llava.train.data.columns import write_ragged
from llava.train.data.image_files import ImageFacts, ImageFiles
from llava.train.data.packing import group_by_image
from llava.train.data.record_files import read_records
from llava.train.data.record_table import FORMAT, RecordTable, TableWriter
from llava.train.data.shards import Place

Item = TypeVar("Item")
Progress = Callable[[Iterable[Any], str, int | None], Iterable[Any]]
"""Called with (items, what happens, how many or None), it yields the items and shows how far the work is."""

_CHUNK = 1024  # records that are encoded together
THREADS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class Encoding:
    """How records become tokens: with the model's processor, where the images are, the most tokens of a
    record, and whether records of one image share its prefix."""

    processor: RecordProcessor
    image_folder: Path
    max_length: int
    packing: bool

    def key(self, sha256: str) -> str:
        """Return a hash of what the table of a file of records with this content follows from."""
        facts = {
            "format": FORMAT,
            "records": sha256,
            "images": address_of(self.image_folder) or str(self.image_folder.resolve()),
            "processor": self.processor.fingerprint(),
            "max_length": self.max_length,
            "packing": self.packing,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def open_table(path: Path, encoding: Encoding, cache: Path, sha256: str, progress: Progress) -> RecordTable:
    """Open the table of a file of records; make it first where there is none in the folder `cache`.

    Args:
        path: The file of records.
        encoding: How they become tokens.
        cache: The folder of tables.
        sha256: The hash of the file's content (`content_hash`).
        progress: Shows how far the work is.

    Raises:
        InputError: A record or an image cannot be used; the message names it. Nothing is written.
    """
    folder = cache / f"{path.stem}-{encoding.key(sha256)[:16]}"
    places: dict[str, Place] = {}
    images = ImageFiles(encoding.image_folder, places)
    if folder.is_dir():
        table = RecordTable(folder)
        if _images_are_as_they_were(table, images):
            return table
    with atomic_folder(folder, overwrite=True) as temporary:
        _Encoder(path, encoding, images, places).write(temporary, progress)
    return RecordTable(folder)


def _images_are_as_they_were(table: RecordTable, images: ImageFiles) -> bool:
    try:
        return all(
            images.file_facts(table.image_name(number), in_shard=table.image_place(number).in_shard)
            == tuple(table.files[number, :2].tolist())
            for number in range(table.images)
        )
    except InputError:  # one is gone
        return False


class _Encoder:
    """Reads, checks and encodes the records of a file."""

    def __init__(self, path: Path, encoding: Encoding, images: ImageFiles, places: dict[str, Place]) -> None:
        self.path = path
        self.places = places
        self.encoding = encoding
        self.image_files = images
        self._ids: set[str] = set()
        self._images: dict[str, int] = {}  # the number of each
        self._files: list[ImageFacts] = []
        self._examples: dict[str | int, list[int]] = {}

    def write(self, folder: Path, progress: Progress) -> None:
        """Write the table into the empty `folder`."""
        writer = TableWriter(folder)
        shown = progress(read_records(self.path, self.places), f"checking records of {self.path.name}", None)
        with ThreadPoolExecutor(THREADS) as pool:
            for records, conversations in self._encode(chunks(iter(shown), _CHUNK), pool):
                writer.add_records([
                    (record, conversation, [self._images[name] for name in record.images])
                    for record, conversation in zip(records, conversations, strict=True)
                ])  # fmt: skip
        if not self._ids:
            raise InputError(f"{self.path} holds no records")
        writer.close()
        writer.add_images(list(self._images), self._files)
        members = list(self._examples.values())
        write_ragged(folder, "members", np.int32, members)
        write_ragged(folder, "group_lengths", np.int32, [])  # so that the table can be opened
        table = RecordTable(folder)
        lengths = progress(self._group_lengths(table, members), "packing", len(members))
        write_ragged(folder, "group_lengths", np.int32, list(lengths))

    def _note(self, records: Sequence[Record]) -> None:
        for record in records:
            if record.id in self._ids:
                raise InputError(f"{self.path}: two records have the id {record.id!r}")
            index = len(self._ids)
            self._ids.add(record.id)
            key = record.images[0] if len(record.images) == 1 else index
            self._examples.setdefault(key, []).append(index)

    def _check_images(self, records: Sequence[Record], pool: ThreadPoolExecutor) -> None:
        """Look at the files of the images that are new in `records`."""
        record_of: dict[str, str] = {}
        for record in records:
            for name in record.images:
                if name not in self._images:
                    record_of.setdefault(name, record.id)

        def check(name: str) -> ImageFacts | InputError:
            try:
                return self.image_files.check(name)
            except InputError as error:
                return error

        for name, found in zip(record_of, pool.map(check, record_of), strict=True):
            if isinstance(found, InputError):
                raise InputError(f"{self.path}, record {record_of[name]!r}: {found}")
            self._images[name] = len(self._files)
            self._files.append(found)

    def _encode(
        self, parts: Iterator[list[Record]], pool: ThreadPoolExecutor
    ) -> Iterator[tuple[list[Record], list[CompactConversation]]]:
        """Yield the records with their encoded forms; while one part is tokenised, the next is read."""
        waiting: deque[tuple[list[Record], list[RenderedConversation], Future[Any]]] = deque()
        for records in chain(parts, [None]):
            if records is not None:
                self._note(records)
                self._check_images(records, pool)
                rendered = self._render(records)
                waiting.append((records, rendered, pool.submit(self.encoding.processor.tokenise, rendered)))
            if waiting and (records is None or len(waiting) > 1):
                yield self._encoded(*waiting.popleft())

    def _render(self, records: Sequence[Record]) -> list[RenderedConversation]:
        rendered = []
        for record in records:
            with self._naming(record):
                rendered.append(self.encoding.processor.render(turns_of(record), self._sizes(record)))
        return rendered

    def _encoded(
        self, records: list[Record], rendered: list[RenderedConversation], tokenised: Future[Any]
    ) -> tuple[list[Record], list[CompactConversation]]:
        processor = self.encoding.processor
        found = list(processor.compact(rendered, tokenised.result()))
        for record, conversation in zip(records, found, strict=True):
            with self._naming(record):
                processor.require_learnable(conversation)
        return records, found

    def _sizes(self, record: Record) -> list[Size] | None:
        if not self.encoding.processor.vision.tokens_depend_on_size:
            return None
        found = [self._files[self._images[name]] for name in record.images]
        return [(facts.height, facts.width) for facts in found]

    def _naming(self, record: Record) -> NamingRecord:
        return NamingRecord(self.path, record.id)

    def _group_lengths(self, table: RecordTable, members: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        encoding = self.encoding
        image_token = encoding.processor.image_token_id
        for indices in members:
            records = [table.encoded(index) for index in indices]
            groups = group_by_image(records, image_token, encoding.max_length, packing=encoding.packing)
            yield [group.length for group in groups]


class NamingRecord:
    """Adds to an InputError within the block which record of which file it is about."""

    def __init__(self, path: Path, record_id: str) -> None:
        self.place = f"{path}, record {record_id!r}"
        self.said_already = f"record {record_id}: "

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, InputError):
            raise InputError(f"{self.place}: {str(error).removeprefix(self.said_already)}") from None


def chunks(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    """Yield the items in lists of `size`; the last may be shorter."""
    while chunk := list(islice(items, size)):
        yield chunk


def turns_of(record: Record) -> ChatTurns:
    return tuple((turn.speaker, turn.value) for turn in record.conversations)

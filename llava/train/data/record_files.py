"""Read training records one after the other, whatever file they are in, so that a million need room for one.

    train.json       a JSON list, LLaVA's own form
    train.jsonl      a record a line
    train.parquet    a record a row, the columns named as the fields
    a folder         a data set that the library `datasets` saved (`save_to_disk`)
    *.tar            a WebDataset shard, or a folder of them: records with their images (`shards.py`)

Parquet and `datasets` need pyarrow (the extra `tables`). Shards may be at an address.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from llava.common.arrow_files import ARROW, PARQUET, data_set_files, pyarrow_for, read_batches
from llava.common.errors import InputError
from llava.common.files import first_problem, sha256
from llava.common.json_stream import stream_records
from llava.common.records import Record
from llava.train.data.shards import Place, read_shard, shards_hash, shards_of


def read_records(path: Path, places: dict[str, Place] | None = None) -> Iterator[Record]:
    """Yield the records of `path` in order.

    Args:
        path: The file or folder.
        places: Is filled with where the images lie that are in shards.

    Raises:
        InputError: The file is absent, is none of those that are read, or holds something that is no record;
            the message names it by index and id.
    """
    adapter = TypeAdapter(Record)
    for index, item in enumerate(_items(path, {} if places is None else places)):
        try:
            record = adapter.validate_python(item)
        except ValidationError as error:
            name = f" (id {item['id']!r})" if isinstance(item, dict) and "id" in item else ""
            raise InputError(f"{path}, record {index}{name}: {first_problem(error)}") from None
        yield record


def _items(path: Path, places: dict[str, Place]) -> Iterator[Any]:
    if shards := shards_of(path):
        return chain.from_iterable(read_shard(shard, places) for shard in shards)
    if path.is_dir():
        return chain.from_iterable(map(_of_table, data_set_files(path)))
    if path.suffix.lower() in (PARQUET, ARROW):
        return _of_table(path)
    return _of_json(path)


def _of_json(path: Path) -> Iterator[Any]:
    for line, value in stream_records(path):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise InputError(
                f"{path}, line {line}: the record holds half of a character; write it as UTF-8"
            ) from None
        yield value


def _of_table(file: Path) -> Iterator[Any]:
    with pyarrow_for(file) as arrow:
        for batch in read_batches(arrow, file):
            yield from map(_without_nulls, batch.to_pylist())


def _without_nulls(value: Any) -> Any:
    """Leave out the fields that a row has only because another row has them: Arrow gives all the same."""
    if isinstance(value, dict):
        return {key: _without_nulls(part) for key, part in value.items() if part is not None}
    if isinstance(value, list):
        return [_without_nulls(part) for part in value]
    return value


def content_hash(path: Path) -> str:
    """Return the SHA-256 of what `read_records` would read; of a folder, of its files' names and contents; of
    shards see `shards_hash`.

    Raises:
        InputError: There is nothing at `path`, or it cannot be read.
    """
    try:
        if shards := shards_of(path):
            return shards_hash(shards)
        if not path.is_dir():
            return sha256(path)
        digest = hashlib.sha256()
        for file in sorted(file for file in path.rglob("*") if file.is_file()):
            digest.update(f"{file.relative_to(path).as_posix()} {sha256(file)}\n".encode())
        return digest.hexdigest()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None

"""Records as training items: one item is a picture with its questions.

Everything is checked when a `RecordSet` is made, before a step is taken: each record is encoded, each
picture decoded. What is drawn for an item (which questions, which augmentation) depends on the seed, the
epoch and the item alone, so a resumed run sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from llava.common.errors import InputError
from llava.common.files import inside, read_json_list
from llava.common.images import open_image, upright_size
from llava.common.records import Record
from llava.processing.text import RecordProcessor
from llava.processing.vision import Pixels, Size, VisionProcessor
from llava.train import augment
from llava.train.config import AugmentSettings
from llava.train.packing import FLASH, IGNORE, Group, Sample, build_row, collate, group_by_image, pack_rows
from llava.train.sampler import SPARE

Progress = Callable[[Iterable[str], str, int], Iterable[str]]
"""Called with (names, what happens, how many): gives the names back and shows how far it is."""


class ImageCache:
    """Pictures in the form that the model's family keeps (LLaVA-1.5: padded and resized to the model's size),
    decoded once while `cache_bytes` allow."""

    def __init__(self, folder: Path, processor: RecordProcessor, cache_bytes: float) -> None:
        self.folder = folder
        self.processor = processor
        self._room = cache_bytes
        self._kept: dict[str, Image.Image] = {}
        self._sizes: dict[str, Size] = {}

    def sizes(self, names: Sequence[str]) -> list[Size] | None:
        """The pictures' sizes, by their headers alone; None where the model does not ask for them."""
        if not self.processor.vision.tokens_depend_on_size:
            return None
        for name in names:
            if name not in self._sizes:
                self._sizes[name] = upright_size(inside(self.folder, name))
        return [self._sizes[name] for name in names]

    def canvas(self, name: str) -> Image.Image:
        """The picture `name` as RGB, ready to be augmented; InputError if it is absent or damaged."""
        kept = self._kept.get(name)
        if kept is not None:
            return kept
        canvas = self.processor.vision.canvas(open_image(inside(self.folder, name)))
        size = 3 * canvas.width * canvas.height
        if self._room >= size:
            self._room -= size
            self._kept[name] = canvas
        return canvas

    def pixels(self, name: str, drawn: augment.Draw | None = None, *, alone: bool = True) -> Pixels:
        """The picture augmented as `drawn` says; `alone`: it is the only one of its record."""
        canvas = self.canvas(name)
        if drawn is not None:
            colour = self.processor.vision.square_processor.mean_colour
            canvas = augment.apply_to_image(canvas, drawn, colour)
        return self.processor.pixels(canvas, alone=alone)

    def pixels_of(self, record: Record, drawn: augment.Draw | None = None) -> dict[str, Pixels]:
        """The record's pictures by the keys that its sample carries."""
        keys = _image_keys(record)
        try:
            return {key: self.pixels(name, drawn, alone=len(keys) == 1) for key, name in keys.items()}
        except InputError as error:  # it was whole when the run began
            raise InputError(f"record {record.id!r}: {error}") from None


@dataclass(frozen=True, eq=False)
class Item:
    """What one index of a dataset gives: records of one picture (or one record without or with several),
    grouped, and the pixels by the key that their samples carry."""

    groups: list[Group]
    pixels: dict[str, Pixels]


class RecordSet:
    """The records of one file, encoded and checked.

    `sources` are the records' units: a picture's records together, every other record alone.
    """

    def __init__(
        self,
        path: Path,
        images: ImageCache,
        *,
        max_length: int,
        packing: bool,
        progress: Progress,
    ) -> None:
        self.path = path
        self.images = images
        self.max_length = max_length
        self.packing = packing
        self.records = read_json_list(path, Record)
        if not self.records:
            raise InputError(f"{path} holds no records")
        self._check_ids()
        self._encoded: dict[tuple[int, augment.Turns], Sample] = {}
        self.samples = [self.encode(index) for index in range(len(self.records))]
        self._check_images(progress)
        by_source: dict[str | int, list[int]] = {}
        for index, record in enumerate(self.records):
            by_source.setdefault(record.images[0] if len(record.images) == 1 else index, []).append(index)
        self.sources = list(by_source.values())

    def _check_ids(self) -> None:
        seen: set[str] = set()
        for record in self.records:
            if record.id in seen:
                raise InputError(f"{self.path}: two records have the id {record.id!r}")
            seen.add(record.id)

    def _check_images(self, progress: Progress) -> None:
        first_of: dict[str, str] = {}
        for record in self.records:
            for name in record.images:
                first_of.setdefault(name, record.id)

        def check(name: str) -> str | None:
            try:
                self.images.canvas(name)
            except InputError as error:
                return f"{self.path}, record {first_of[name]!r}: {error}"
            return None

        # Pillow decodes outside the interpreter's lock, so threads help.
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            found = pool.map(check, first_of)
            for _, problem in zip(
                progress(first_of, f"reading pictures of {self.path.name}", len(first_of)), found, strict=True
            ):
                if problem is not None:
                    pool.shutdown(cancel_futures=True)
                    raise InputError(problem)

    def encode(self, index: int, drawn: augment.Draw | None = None) -> Sample:
        """Record `index` as tokens, its words turned as `drawn` says."""
        record = self.records[index]
        turns: augment.Turns = tuple((turn.speaker, turn.value) for turn in record.conversations)
        if drawn is not None and (drawn.horizontal or drawn.vertical) and augment.speaks_of_places(record):
            turns = tuple((speaker, augment.turn_text(text, drawn)) for speaker, text in turns)
        sample = self._encoded.get((index, turns))
        if sample is None:
            try:
                encoded = self.images.processor.encode(turns, self.images.sizes(record.images))
                sample = Sample.of(record.id, encoded.input_ids, encoded.labels, _image_keys(record))
                # Also the check that the record fits.
                group_by_image([sample], self.images.processor.image_token_id, self.max_length)
            except InputError as error:
                message = str(error).removeprefix(f"record {record.id}: ")
                raise InputError(f"{self.path}, record {record.id!r}: {message}") from None
            self._encoded[index, turns] = sample
        return sample

    def group(self, samples: Sequence[Sample]) -> list[Group]:
        image_token = self.images.processor.image_token_id
        return group_by_image(samples, image_token, self.max_length, packing=self.packing)

    def __len__(self) -> int:
        return len(self.sources)

    def lengths(self, source: int) -> list[int]:
        """The tokens of each of the unit's groups, packed."""
        return [g.length for g in self.group([self.samples[index] for index in self.sources[source]])]

    def has_image(self, source: int) -> bool:
        return bool(self.records[self.sources[source][0]].images)

    def spare(self) -> Item:
        """The shortest record, with a picture if any has one; nothing in it is learned (`sampler.SPARE`)."""
        index = min(
            range(len(self.records)), key=lambda i: (not self.records[i].images, len(self.samples[i]))
        )
        sample = self.samples[index]
        unsupervised = replace(sample, labels=np.full_like(sample.labels, IGNORE))
        return Item(self.group([unsupervised]), self.images.pixels_of(self.records[index]))

    def item(self, source: int) -> Item:
        """Unit `source` as it is: every record, no augmentation."""
        indices = self.sources[source]
        pixels = self.images.pixels_of(self.records[indices[0]])
        return Item(self.group([self.samples[index] for index in indices]), pixels)


def _image_keys(record: Record) -> dict[str, str]:
    """Key -> name of the record's pictures. A picture that all of its records are asked about together has
    its name as key; in a record of several it has a key of its own, for it may be augmented otherwise."""
    if len(record.images) == 1:
        return {record.images[0]: record.images[0]}
    return {f"{record.id}#{number}": name for number, name in enumerate(record.images)}


class TrainItems(torch.utils.data.Dataset):
    """A RecordSet's units in an order drawn for each epoch, each with its drawn questions and augmentation.

    `set_epoch` must be called before an epoch; index i is then the i-th unit of that epoch.
    """

    def __init__(
        self,
        records: RecordSet,
        *,
        seed: int,
        questions_per_picture: int | None,
        augmentation: AugmentSettings,
    ) -> None:
        self.records = records
        self.seed = seed
        self.questions_per_picture = questions_per_picture
        self.augmentation = augmentation
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self.order = np.random.default_rng([self.seed, epoch]).permutation(len(self.records.sources))

    def __len__(self) -> int:
        return len(self.records.sources)

    def lengths(self, index: int) -> list[int]:
        """The tokens of each of the item's groups, packed, without augmentation."""
        return [group.length for group in self.records.group(self._samples(int(self.order[index])))]

    def has_image(self, index: int) -> bool:
        return self.records.has_image(int(self.order[index]))

    def _samples(self, source: int) -> list[Sample]:
        """What is drawn for a unit this epoch, without augmentation."""
        rng = np.random.default_rng([self.seed, self.epoch, source])
        return [self.records.samples[index] for index in self._draw_questions(source, rng)]

    def __getitem__(self, index: int) -> Item:
        if index == SPARE:
            return self.records.spare()
        source = int(self.order[index])
        rng = np.random.default_rng([self.seed, self.epoch, source])
        indices = self._draw_questions(source, rng)
        records = [self.records.records[i] for i in indices]
        drawn = augment.draw(self.augmentation, records, rng)
        samples = [self.records.encode(i, drawn) for i in indices]
        return Item(self.records.group(samples), self.records.images.pixels_of(records[0], drawn))

    def _draw_questions(self, source: int, rng: np.random.Generator) -> list[int]:
        indices = self.records.sources[source]
        limit = self.questions_per_picture
        if limit is None or len(indices) <= limit:
            return indices
        return [indices[i] for i in sorted(rng.choice(len(indices), limit, replace=False))]

    def token_counts(self) -> tuple[int, int, int]:
        """Of the current epoch, without augmentation: (packed, unpacked, supervised) tokens."""
        packed = unpacked = supervised = 0
        for source in range(len(self)):
            samples = self._samples(source)
            packed += sum(group.length for group in self.records.group(samples))
            unpacked += sum(map(len, samples))
            supervised += sum(int((sample.labels[1:] >= 0).sum()) for sample in samples)
        return packed, unpacked, supervised


class Collator:
    """Items -> a packed batch for an `attention` implementation (see `packing.collate`)."""

    def __init__(
        self,
        images: VisionProcessor,
        max_length: int,
        hidden_size: int,
        pad_token_id: int,
        attention: str = "sdpa",
    ) -> None:
        self.images = images
        self.max_length = max_length
        self.hidden_size = hidden_size
        self.pad_token_id = pad_token_id
        self.attention = attention

    def __call__(self, items: list[Item]) -> dict[str, Any]:
        groups = [group for item in items for group in item.groups]
        pixels = {key: value for item in items for key, value in item.pixels.items()}
        if self.attention == FLASH:  # it knows no mask but padding
            packed = [[group] for group in groups]
        else:
            packed = pack_rows(groups, self.max_length, self.hidden_size)
        return collate(
            [build_row(row) for row in packed], pixels.__getitem__, self.images,
            pad_token_id=self.pad_token_id, attention=self.attention,
        )  # fmt: skip

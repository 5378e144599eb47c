"""Records as training examples: one example is an image with all of its records.

A `RecordSet` is checked and encoded before a step is taken, once for all processes (`data.token_cache`). What
is drawn for an example (which questions, which augmentation) depends on the seed, the epoch and the example
alone, so a resumed run sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from llava.common.errors import InputError
from llava.processing.text import RecordProcessor
from llava.processing.vision import Pixels, Size, VisionProcessor
from llava.train import augment
from llava.train.config import AugmentSettings
from llava.train.data.columns import Ragged
from llava.train.data.image_files import load_image
from llava.train.data.packing import (
    FLASH,
    IGNORE,
    Batch,
    EncodedRecord,
    ImageGroup,
    build_row,
    collate,
    group_by_image,
    pack_rows,
)
from llava.train.data.picture_cache import PictureCache
from llava.train.data.record_files import content_hash
from llava.train.data.record_table import RecordTable, image_keys
from llava.train.data.sampler import SPARE
from llava.train.data.token_cache import THREADS, Encoding, NamingRecord, Progress, open_table, turns_of

Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class TrainingExample:
    """What one index of a data set gives: the records of one image (or one record without an image or with
    several), grouped, and the pixels by the key that the encoded records carry."""

    groups: list[ImageGroup]
    pixels: dict[str, Pixels]


class LazySequence(Sequence[Item], Generic[Item]):
    """A sequence whose items are made when they are asked for."""

    def __init__(self, length: int, make: Callable[[int], Item]) -> None:
        self._length = length
        self._make = make

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Item:  # type: ignore[override]  # no slices
        if not -self._length <= index < self._length:
            raise IndexError(index)
        return self._make(index % self._length)


class RecordSet:
    """The records of one file, checked and encoded.

    `records` and `encoded` are the records and their encoded forms, without augmentation; `examples` lists
    the record indices of each training example: an image's records together, every other record alone. All
    are read from the token cache when they are asked for. `sha256` is the hash of the file's content.
    """

    def __init__(
        self,
        path: Path,
        encoding: Encoding,
        cache: Path,
        *,
        picture_room: float,
        progress: Progress,
    ) -> None:
        """Open the records' table; read, check and encode all of them where there is none yet.

        Args:
            path: The file of records (`data.record_files`).
            encoding: How they become tokens.
            cache: The folder of the token cache, which is made.
            picture_room: The bytes that decoded images may take beside it.
            progress: Shows how far the work is.

        Raises:
            InputError: A record or an image cannot be used; the message names it.
        """
        self.path = path
        self.encoding = encoding
        self.processor = encoding.processor
        self.sha256 = content_hash(path)
        self.table = open_table(path, encoding, cache, self.sha256, progress)
        self.images = ImageLoader(encoding.image_folder, self.processor, self.table, picture_room)
        self.records = LazySequence(len(self.table), self.table.record)
        self.encoded = LazySequence(len(self.table), self.table.encoded)
        self.examples = LazySequence(len(self.table.members), self.table.members_of)

    def verify(self, progress: Progress, share: slice) -> list[str]:
        """Decode a share of the images; return what is wrong with them, a line for each that is damaged."""
        table = self.table
        numbers = range(table.images)[share]

        def check(number: int) -> str | None:
            try:
                self.images.canvas(number)
            except InputError as error:
                return f"{self.path}: {error}"
            return None

        # Pillow decodes outside the interpreter's lock, so threads help.
        with ThreadPoolExecutor(THREADS) as pool:
            shown = progress(pool.map(check, numbers), f"decoding pictures of {self.path.name}", len(numbers))
            return [problem for problem in shown if problem is not None]

    def encode(self, index: int, augmentation: augment.Augmentation | None = None) -> EncodedRecord:
        """Encode record `index`; where the image is flipped, its words of direction and boxes are too."""
        if augmentation is None or not augmentation.flips:
            return self.encoded[index]
        record = self.records[index]
        if not augment.mentions_places(record):
            return self.encoded[index]
        turns = tuple((speaker, augment.flip_text(text, augmentation)) for speaker, text in turns_of(record))
        with NamingRecord(self.path, record.id):
            conversation = self.processor.encode_compact(turns, self.images.sizes(index))
        return EncodedRecord(
            record.id,
            conversation.input_ids,
            np.where(conversation.supervised, conversation.input_ids, IGNORE),
            tuple(image_keys(record.id, record.images)),
            conversation.image_at,
            conversation.image_tokens,
        )

    def group(self, records: Sequence[EncodedRecord]) -> list[ImageGroup]:
        encoding = self.encoding
        image_token = self.processor.image_token_id
        return group_by_image(records, image_token, encoding.max_length, packing=encoding.packing)

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def has_images(self) -> bool:
        """Whether any record has an image."""
        return self.table.images > 0

    def lengths(self, example: int) -> list[int]:
        """Count the tokens of each of the example's groups, packed."""
        return self.table.group_lengths[example].tolist()

    def has_image(self, example: int) -> bool:
        return bool(self.table.image_counts[self.table.members[example][0]])

    @cached_property
    def _spare(self) -> int:
        """The shortest record, with an image if any has one."""
        chosen = np.flatnonzero(self.table.image_counts) if self.has_images else np.arange(len(self.table))
        return int(chosen[self.table.lengths[chosen].argmin()])

    def spare_example(self) -> TrainingExample:
        """Give the shortest record, with an image if any has one, without anything to learn
        (`sampler.SPARE`)."""
        encoded = self.encoded[self._spare]
        unsupervised = replace(encoded, labels=np.full_like(encoded.labels, IGNORE))
        return TrainingExample(self.group([unsupervised]), self.images.pixels_of(self._spare))

    def example(self, example: int) -> TrainingExample:
        """Give an example as it is: every record, no augmentation."""
        indices = self.examples[example]
        pixels = self.images.pixels_of(indices[0])
        return TrainingExample(self.group([self.encoded[index] for index in indices]), pixels)


class ImageLoader:
    """Loads the images of a table in the form that the model's family keeps (LLaVA-1.5: padded and resized to
    the model's size), and keeps the decoded ones in a file while they find room."""

    def __init__(self, folder: Path, processor: RecordProcessor, table: RecordTable, room: float) -> None:
        self.folder = folder
        self.processor = processor
        self._table = table
        vision = processor.vision
        sizes = table.files[:, 2:4]
        if not vision.tokens_depend_on_size:
            sizes = np.broadcast_to(np.array(vision.canvas_size((0, 0))), sizes.shape)
        self.cache = PictureCache(table.folder, sizes, room)

    def sizes(self, index: int) -> list[Size] | None:
        """Return the sizes of a record's images; None where the model does not depend on them."""
        if not self.processor.vision.tokens_depend_on_size:
            return None
        return [self._table.image_size(number) for number in self._table.images_of(index)]

    def canvas(self, number: int) -> Image.Image:
        """Load image `number` as RGB, ready to be augmented; InputError if it is absent or damaged."""
        cached = self.cache.find(number)
        if cached is not None:
            return cached
        name = self._table.image_name(number)
        image = load_image(self.folder, name, self._table.image_place(number))
        canvas = self.processor.vision.canvas(image)
        self.cache.keep(number, canvas)
        return canvas

    def pixels(
        self, number: int, augmentation: augment.Augmentation | None = None, *, alone: bool = True
    ) -> Pixels:
        """Load an image augmented; `alone` says that it is the only one of its record."""
        canvas = self.canvas(number)
        if augmentation is not None:
            colour = self.processor.vision.square_processor.mean_colour
            canvas = augment.augment_image(canvas, augmentation, colour)
        return self.processor.pixels(canvas, alone=alone)

    def pixels_of(self, index: int, augmentation: augment.Augmentation | None = None) -> dict[str, Pixels]:
        """Load a record's images by the keys that its encoded form carries."""
        record_id, numbers = self._table.record_id(index), self._table.images_of(index)
        keys = image_keys(record_id, [self._table.image_name(number) for number in numbers])
        alone = len(numbers) == 1
        try:
            return {
                key: self.pixels(number, augmentation, alone=alone)
                for key, number in zip(keys, numbers, strict=True)
            }
        except InputError as error:  # its beginning and end were as they should be when the run began
            raise InputError(f"record {record_id!r}: {error}") from None


class TrainingSet(torch.utils.data.Dataset):
    """The examples of a RecordSet in an order drawn for each epoch, each with the questions and the
    augmentation that were drawn for it.

    `set_epoch` must be called before an epoch; index i is then the i-th example of that epoch.
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
        self.order = np.random.default_rng([self.seed, epoch]).permutation(len(self.records))

    def __len__(self) -> int:
        return len(self.records)

    def lengths(self, index: int) -> list[int]:
        """Count the tokens of each of the example's groups, packed, without augmentation."""
        example = int(self.order[index])
        if not self._chooses(example):
            return self.records.lengths(example)
        return [group.length for group in self.records.group(self._drawn(example))]

    def has_image(self, index: int) -> bool:
        return self.records.has_image(int(self.order[index]))

    def _chooses(self, example: int) -> bool:
        """Tell whether only some of the example's questions are read in an epoch."""
        limit = self.questions_per_picture
        return limit is not None and len(self.records.table.members[example]) > limit

    def _drawn(self, example: int) -> list[EncodedRecord]:
        """The records drawn for an example this epoch, without augmentation."""
        rng = np.random.default_rng([self.seed, self.epoch, example])
        return [self.records.encoded[index] for index in self._draw_questions(example, rng)]

    def __getitem__(self, index: int) -> TrainingExample:
        if index == SPARE:
            return self.records.spare_example()
        example = int(self.order[index])
        rng = np.random.default_rng([self.seed, self.epoch, example])
        indices = self._draw_questions(example, rng)
        records = [self.records.records[i] for i in indices]
        augmentation = augment.draw_augmentation(self.augmentation, records, rng)
        groups = self.records.group([self.records.encode(i, augmentation) for i in indices])
        return TrainingExample(groups, self.records.images.pixels_of(indices[0], augmentation))

    def _draw_questions(self, example: int, rng: np.random.Generator) -> list[int]:
        indices = self.records.examples[example]
        if not self._chooses(example):
            return indices
        return [
            indices[i] for i in sorted(rng.choice(len(indices), self.questions_per_picture, replace=False))
        ]

    def measure(self) -> EpochSizes:
        """Count the tokens of the current epoch, without augmentation."""
        table = self.records.table
        members = table.members.values

        def sums(values: NDArray, of: Ragged) -> NDArray[np.int64]:
            return np.add.reduceat(values, of.ends - of.lengths(), dtype=np.int64)

        packed = sums(table.group_lengths.values, table.group_lengths)
        unpacked = sums(table.lengths[members], table.members)
        supervised = sums(table.supervised[members], table.members)
        drawn: dict[int, list[int]] = {}
        for example in filter(self._chooses, range(len(self)) if self.questions_per_picture else ()):
            records = self._drawn(example)
            drawn[example] = [group.length for group in self.records.group(records)]
            packed[example] = sum(drawn[example])
            unpacked[example] = sum(map(len, records))
            supervised[example] = sum(int((record.labels != IGNORE).sum()) for record in records)
        return EpochSizes(
            self.records, self.order, drawn, packed[self.order], int(unpacked.sum()), int(supervised.sum())
        )


@dataclass(frozen=True, eq=False)
class EpochSizes:
    """The sizes of an epoch's examples, in tokens; `packed` (examples,) has their sums in the order of the
    epoch. It gives the lengths of an example as the `TrainingSet` does, without reading its records again."""

    records: RecordSet
    order: NDArray[np.int64]
    drawn: Mapping[int, list[int]]
    """Of the examples of which only some questions are read: the tokens of their groups."""
    packed: NDArray[np.int64]
    unpacked: int
    supervised: int

    def __len__(self) -> int:
        return len(self.order)

    def lengths(self, index: int) -> list[int]:
        example = int(self.order[index])
        return self.drawn.get(example) or self.records.lengths(example)

    def has_image(self, index: int) -> bool:
        return self.records.has_image(int(self.order[index]))


class Collator:
    """Turns training examples into a packed batch for an `attention` implementation (`packing.collate`)."""

    def __init__(
        self,
        images: VisionProcessor,
        max_length: int,
        hidden_size: int,
        pad_token_id: int,
        attention: str = "sdpa",
    ) -> None:
        """Keep what every batch needs.

        Args:
            images: The model family's vision processor.
            max_length: The most tokens of a row.
            hidden_size: The language model's, for the cost of a row (`packing.pack_rows`).
            pad_token_id: The id that fills short rows.
            attention: The name of the model's attention implementation.
        """
        self.images = images
        self.max_length = max_length
        self.hidden_size = hidden_size
        self.pad_token_id = pad_token_id
        self.attention = attention

    def __call__(self, examples: list[TrainingExample]) -> Batch:
        groups = [group for example in examples for group in example.groups]
        pixels = {key: value for example in examples for key, value in example.pixels.items()}
        if self.attention == FLASH:  # it takes no mask but padding
            packed = [[group] for group in groups]
        else:
            packed = pack_rows(groups, self.max_length, self.hidden_size)
        return collate(
            [build_row(row) for row in packed], pixels.__getitem__, self.images,
            pad_token_id=self.pad_token_id, attention=self.attention,
        )  # fmt: skip

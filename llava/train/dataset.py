"""Records as training examples: one example is an image with all of its records.

A `RecordSet` checks everything before a step is taken: it encodes each record and decodes each image. What is
drawn for an example (which questions, which augmentation) depends on the seed, the epoch and the example
alone, so a resumed run sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

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
from llava.train.packing import (
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
from llava.train.sampler import SPARE

Progress = Callable[[Iterable[str], str, int], Iterable[str]]
"""Called with (names, what happens, how many), it yields the names and shows how far the work is."""


class ImageLoader:
    """Loads images in the form that the model's family keeps (LLaVA-1.5: padded and resized to the model's
    size), and keeps the decoded ones in memory while `cache_bytes` allow."""

    def __init__(self, folder: Path, processor: RecordProcessor, cache_bytes: float) -> None:
        self.folder = folder
        self.processor = processor
        self._free_bytes = cache_bytes
        self._canvases: dict[str, Image.Image] = {}
        self._sizes: dict[str, Size] = {}

    def sizes(self, names: Sequence[str]) -> list[Size] | None:
        """Read the images' sizes from their headers; None where the model does not depend on them."""
        if not self.processor.vision.tokens_depend_on_size:
            return None
        for name in names:
            if name not in self._sizes:
                self._sizes[name] = upright_size(inside(self.folder, name))
        return [self._sizes[name] for name in names]

    def canvas(self, name: str) -> Image.Image:
        """Load the image `name` as RGB, ready to be augmented; InputError if it is absent or damaged."""
        cached = self._canvases.get(name)
        if cached is not None:
            return cached
        canvas = self.processor.vision.canvas(open_image(inside(self.folder, name)))
        size = 3 * canvas.width * canvas.height
        if self._free_bytes >= size:
            self._free_bytes -= size
            self._canvases[name] = canvas
        return canvas

    def pixels(
        self, name: str, augmentation: augment.Augmentation | None = None, *, alone: bool = True
    ) -> Pixels:
        """Load the image augmented; `alone` says that it is the only one of its record."""
        canvas = self.canvas(name)
        if augmentation is not None:
            colour = self.processor.vision.square_processor.mean_colour
            canvas = augment.augment_image(canvas, augmentation, colour)
        return self.processor.pixels(canvas, alone=alone)

    def pixels_of(
        self, record: Record, augmentation: augment.Augmentation | None = None
    ) -> dict[str, Pixels]:
        """Load the record's images by the keys that its encoded form carries."""
        keys = _image_keys(record)
        try:
            return {key: self.pixels(name, augmentation, alone=len(keys) == 1) for key, name in keys.items()}
        except InputError as error:  # it was readable when the run began
            raise InputError(f"record {record.id!r}: {error}") from None


@dataclass(frozen=True, eq=False)
class TrainingExample:
    """What one index of a data set gives: the records of one image (or one record without an image or with
    several), grouped, and the pixels by the key that the encoded records carry."""

    groups: list[ImageGroup]
    pixels: dict[str, Pixels]


class RecordSet:
    """The records of one file, encoded and checked.

    `examples` lists the record indices of each training example: an image's records together, every other
    record alone. `encoded` holds the encoded form of each record, without augmentation.
    """

    def __init__(
        self,
        path: Path,
        images: ImageLoader,
        *,
        max_length: int,
        packing: bool,
        progress: Progress,
    ) -> None:
        """Read, encode and check all records.

        Args:
            path: Conversation JSON.
            images: Loads the records' images.
            max_length: The most tokens of a record.
            packing: Whether records of one image share its prefix.
            progress: Shows how far the check is.

        Raises:
            InputError: A record or an image cannot be used; the message names it.
        """
        self.path = path
        self.images = images
        self.max_length = max_length
        self.packing = packing
        self.records = read_json_list(path, Record)
        if not self.records:
            raise InputError(f"{path} holds no records")
        self._check_ids()
        self._encoded: dict[tuple[int, augment.Turns], EncodedRecord] = {}
        self.encoded = [self.encode(index) for index in range(len(self.records))]
        self._check_images(progress)
        by_image: dict[str | int, list[int]] = {}
        for index, record in enumerate(self.records):
            by_image.setdefault(record.images[0] if len(record.images) == 1 else index, []).append(index)
        self.examples = list(by_image.values())

    def _check_ids(self) -> None:
        known: set[str] = set()
        for record in self.records:
            if record.id in known:
                raise InputError(f"{self.path}: two records have the id {record.id!r}")
            known.add(record.id)

    def _check_images(self, progress: Progress) -> None:
        record_of: dict[str, str] = {}
        for record in self.records:
            for name in record.images:
                record_of.setdefault(name, record.id)

        def check(name: str) -> str | None:
            try:
                self.images.canvas(name)
            except InputError as error:
                return f"{self.path}, record {record_of[name]!r}: {error}"
            return None

        # Pillow decodes outside the interpreter's lock, so threads help.
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            problems = pool.map(check, record_of)
            shown = progress(record_of, f"reading pictures of {self.path.name}", len(record_of))
            for _, problem in zip(shown, problems, strict=True):
                if problem is not None:
                    pool.shutdown(cancel_futures=True)
                    raise InputError(problem)

    def encode(self, index: int, augmentation: augment.Augmentation | None = None) -> EncodedRecord:
        """Encode record `index`; where the image is flipped, its words of direction and boxes are too."""
        record = self.records[index]
        turns: augment.Turns = tuple((turn.speaker, turn.value) for turn in record.conversations)
        if augmentation is not None and augmentation.flips and augment.mentions_places(record):
            turns = tuple((speaker, augment.flip_text(text, augmentation)) for speaker, text in turns)
        encoded = self._encoded.get((index, turns))
        if encoded is None:
            try:
                conversation = self.images.processor.encode(turns, self.images.sizes(record.images))
                encoded = EncodedRecord.of(
                    record.id, conversation.input_ids, conversation.labels, _image_keys(record)
                )
                self.group([encoded])  # also checks its length
            except InputError as error:
                message = str(error).removeprefix(f"record {record.id}: ")
                raise InputError(f"{self.path}, record {record.id!r}: {message}") from None
            self._encoded[index, turns] = encoded
        return encoded

    def group(self, records: Sequence[EncodedRecord]) -> list[ImageGroup]:
        image_token = self.images.processor.image_token_id
        return group_by_image(records, image_token, self.max_length, packing=self.packing)

    def __len__(self) -> int:
        return len(self.examples)

    def lengths(self, example: int) -> list[int]:
        """Count the tokens of each of the example's groups, packed."""
        records = [self.encoded[index] for index in self.examples[example]]
        return [group.length for group in self.group(records)]

    def has_image(self, example: int) -> bool:
        return bool(self.records[self.examples[example][0]].images)

    def spare_example(self) -> TrainingExample:
        """Give the shortest record, with an image if any has one, without anything to learn
        (`sampler.SPARE`)."""
        index = min(
            range(len(self.records)), key=lambda i: (not self.records[i].images, len(self.encoded[i]))
        )
        encoded = self.encoded[index]
        unsupervised = replace(encoded, labels=np.full_like(encoded.labels, IGNORE))
        return TrainingExample(self.group([unsupervised]), self.images.pixels_of(self.records[index]))

    def example(self, example: int) -> TrainingExample:
        """Give an example as it is: every record, no augmentation."""
        indices = self.examples[example]
        pixels = self.images.pixels_of(self.records[indices[0]])
        return TrainingExample(self.group([self.encoded[index] for index in indices]), pixels)


def _image_keys(record: Record) -> dict[str, str]:
    """Map a key to the name of each of the record's images. The image of a record with one has its name as
    key, for all of its records share it; in a record of several it has a key of its own, for it may be
    augmented otherwise."""
    if len(record.images) == 1:
        return {record.images[0]: record.images[0]}
    return {f"{record.id}#{number}": name for number, name in enumerate(record.images)}


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
        return [group.length for group in self.records.group(self._encoded(int(self.order[index])))]

    def has_image(self, index: int) -> bool:
        return self.records.has_image(int(self.order[index]))

    def _encoded(self, example: int) -> list[EncodedRecord]:
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
        return TrainingExample(groups, self.records.images.pixels_of(records[0], augmentation))

    def _draw_questions(self, example: int, rng: np.random.Generator) -> list[int]:
        indices = self.records.examples[example]
        limit = self.questions_per_picture
        if limit is None or len(indices) <= limit:
            return indices
        return [indices[i] for i in sorted(rng.choice(len(indices), limit, replace=False))]

    def token_counts(self) -> tuple[int, int, int]:
        """Count the current epoch's tokens without augmentation: (packed, unpacked, supervised)."""
        packed = unpacked = supervised = 0
        for example in range(len(self)):
            records = self._encoded(example)
            packed += sum(group.length for group in self.records.group(records))
            unpacked += sum(map(len, records))
            supervised += sum(int((record.labels[1:] >= 0).sum()) for record in records)
        return packed, unpacked, supervised


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

"""Validation while training: the loss over all records, and greedy answers to a sample of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from llava.common.records import IMAGE_PLACEHOLDER, Record
from llava.inference.engine import Engine, Request
from llava.model.builder import LoadedModel
from llava.processing.vision import Pixels
from llava.train.config import TrainSettings
from llava.train.data.packing import packed_loss
from llava.train.data.sampler import SPARE, global_batches
from llava.train.dataset import Collator, RecordSet

_QUESTIONS_AT_ONCE = 64
"""Questions whose images are in memory together."""


class Answer(NamedTuple):
    """A validation question with the expected answer and the model's."""

    id: str
    question: str
    expected: str
    answer: str


class Validation:
    """Validates on held-out records. Of `ranks` processes, number `rank` takes its share; nothing is averaged
    here, so that the shares can be added."""

    def __init__(self, records: RecordSet, loaded: LoadedModel, settings: TrainSettings) -> None:
        self.records = records
        self.loaded = loaded
        self.settings = settings

    def loss(
        self, model: Any, prepare: Callable[[Any], Any], collate: Collator, rank: int, ranks: int
    ) -> torch.Tensor:
        """Compute the loss of this process's share.

        Args:
            model: The model, possibly wrapped for several processes.
            prepare: Moves a batch to the device.
            collate: Makes a batch of examples.
            rank: The number of this process.
            ranks: How many processes there are.

        Returns:
            (2,) float64: the summed loss, and the number of supervised tokens.
        """
        records = self.records
        size = self.settings.eval_batch_size or self.settings.batch_size
        sums = torch.zeros(2, dtype=torch.float64)
        for shares in global_batches(records, size, ranks, collate.hidden_size):
            examples = [
                records.spare_example() if index == SPARE else records.example(index)
                for index in shares[rank]
            ]
            total, count = packed_loss(model, prepare(collate(examples)))
            sums += torch.tensor([total.item(), count], dtype=torch.float64)
        return sums

    def answers(self, rank: int, ranks: int) -> list[Answer]:
        """Answer the first question of records drawn evenly over images, greedily; they are the same records
        at every validation."""
        records = self.records
        chosen = sample_records(records, self.settings.eval_generate_samples, self.settings.seed)[rank::ranks]
        engine = Engine(self.loaded)
        answers = []
        for start in range(0, len(chosen), _QUESTIONS_AT_ONCE):
            numbers = chosen[start : start + _QUESTIONS_AT_ONCE]
            batch = [records.records[number] for number in numbers]
            requests = self._requests(numbers, batch)
            results = engine.answer(requests, batch_size=32, max_new_tokens=self.settings.eval_max_new_tokens)
            answers += [
                Answer(record.id, question_of(record), record.conversations[1].value, result.text)
                for record, result in zip(batch, results, strict=True)
            ]
        return answers

    def _requests(self, numbers: Sequence[int], batch: Sequence[Record]) -> list[Request]:
        """Make a request of each record's first question; an image is one object in all of them."""
        pixels: dict[tuple[int, bool], Pixels] = {}
        requests = []
        for number, record in zip(numbers, batch, strict=True):
            text = question_of(record)
            # the rest belong to later turns
            images = self.records.table.images_of(number)[: text.count(IMAGE_PLACEHOLDER)]
            alone = len(images) == 1
            for image in images:
                if (image, alone) not in pixels:
                    pixels[image, alone] = self.records.images.pixels(image, alone=alone)
            requests.append(Request(record.id, text, [pixels[image, alone] for image in images]))
        return requests


def question_of(record: Record) -> str:
    return record.conversations[0].value


def sample_records(records: RecordSet, count: int, seed: int) -> list[int]:
    """Draw at most `count` record indices, spread evenly over images; an image's records stay together."""
    rng = np.random.default_rng(seed)
    order = [rng.permutation(indices).tolist() for indices in records.examples]
    turns = rng.permutation(len(order)).tolist()
    per_example = -(-count // len(order))  # rounded up
    taken = [order[example][:per_example] for example in turns]
    return [index for indices in taken for index in indices][:count]


def normalise(answer: str) -> str:
    """Remove what does not change an answer: case, spaces around and repeated, a final full stop."""
    return " ".join(answer.lower().split()).rstrip(".").strip()


def count_answers(pairs: list[tuple[str, str]]) -> torch.Tensor:
    """Count (expected, given) pairs: (7,) float64 of questions, right answers, yes-questions, right ones of
    them, no-questions, right ones of them, and answers "yes" to either."""
    counts = torch.zeros(7, dtype=torch.float64)
    for expected, given in ((normalise(a), normalise(b)) for a, b in pairs):
        counts[0] += 1
        counts[1] += expected == given
        if expected in ("yes", "no"):
            column = 2 if expected == "yes" else 4
            counts[column] += 1
            counts[column + 1] += expected == given
            counts[6] += given == "yes"
    return counts


def answer_figures(counts: list[float]) -> dict[str, float]:
    """Turn `count_answers` into figures: `accuracy` (exact match after `normalise`) and, where both yes- and
    no-questions were asked, `yesno` (balanced accuracy) and `said_yes` (the share answered yes)."""
    questions, right, yes, yes_right, no, no_right, said_yes = counts
    figures = {"accuracy": right / questions} if questions else {}
    if yes and no:
        figures["yesno"] = (yes_right / yes + no_right / no) / 2
        figures["said_yes"] = said_yes / (yes + no)
    return figures

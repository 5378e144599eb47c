"""The trainer's own parts: the loss of a step, the rates of the parts, answers, the items of an epoch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from llava.common.errors import InputError
from llava.train.config import AugmentSettings
from llava.train.dataset import TrainingSet
from llava.train.validation import answer_figures, count_answers, normalise, sample_records
from tests.support.record_sets import read_records
from tests.support.train_data import ask, many, write_data


def test_an_item_is_an_image_with_its_questions(tiny_model_dir: Path, tmp_path: Path) -> None:
    write_data(tmp_path, [*many(3, 4), ask("text", None, "Hello?", "Hi.")])
    records = read_records(tiny_model_dir, tmp_path)
    assert sorted(map(len, records.examples)) == [1, 4, 4, 4]
    item = records.example(0)
    (group,) = item.groups
    assert len(group.records) == 4 and list(item.pixels) == ["p0.png"]
    assert [
        len(group.records)
        for group in read_records(tiny_model_dir, tmp_path, packing=False).example(0).groups
    ] == [1] * 4


def test_an_epoch_is_drawn_from_its_number_and_the_seed_alone(tiny_model_dir: Path, tmp_path: Path) -> None:
    write_data(tmp_path, many(5, 6))

    def epoch(items: TrainingSet, number: int) -> list[Any]:
        items.set_epoch(number)
        found = [items[index] for index in range(len(items))]
        return [
            (
                [s.record_id for g in i.groups for s in g.records],
                float(next(iter(i.pixels.values())).patches.sum()),
            )
            for i in found
        ]

    def fresh(seed: int = 0, **changes: Any) -> TrainingSet:
        augmentation = AugmentSettings(flip_horizontal=0.5, brightness=0.3)
        records = read_records(tiny_model_dir, tmp_path, **changes)
        return TrainingSet(records, seed=seed, questions_per_picture=2, augmentation=augmentation)

    items = fresh()
    first, second = epoch(items, 0), epoch(items, 1)
    assert all(len(ids) == 2 for ids, _ in first)
    assert first != second and first == epoch(items, 0)
    assert second == epoch(fresh(), 1) == epoch(fresh(picture_cache_gb=0), 1)
    assert first != epoch(fresh(seed=1), 0)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([ask("a", "absent.png", "q?", "a.")], "record 'a': .*absent.png: no such picture"),
        ([ask("a", "../x.png", "q?", "a.")], "record 'a': .*outside"),
        ([ask("a", "p.png", "word " * 600, "a.")], r"record 'a': .* tokens, more than max_length"),
        ([ask("a", "p.png", "q?", "a."), ask("a", "p.png", "q?", "b.")], "two records have the id 'a'"),
        ([ask("a", "p.png", "q </s>?", "a.")], "record 'a': turn 0 contains '</s>'"),
        ([], "holds no records"),
    ],
)
def test_what_cannot_be_trained_on_is_named_first(
    tiny_model_dir: Path, tmp_path: Path, records: list[dict[str, Any]], message: str
) -> None:
    write_data(tmp_path, [record for record in records if record.get("image") == "p.png"])
    (tmp_path / "train.json").write_text(json.dumps(records), encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        read_records(tiny_model_dir, tmp_path)
    assert "train.json" in str(caught.value)


def test_a_truncated_image_is_named_with_its_record(tiny_model_dir: Path, tmp_path: Path) -> None:
    write_data(tmp_path, many(2, 1))
    whole = (tmp_path / "p1.png").read_bytes()
    (tmp_path / "p1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"record 'r1-0': .*p1.png: .*cut short"):
        read_records(tiny_model_dir, tmp_path)


def test_answers_are_counted() -> None:
    assert normalise("  Yes . ") == "yes" and normalise("A  Broken\ndisc.") == "a broken disc"
    pairs = [("Yes.", "yes"), ("Yes.", "No."), ("No.", "No"), ("No.", "no."), ("Broken disc.", "nest")]
    figures = answer_figures(count_answers(pairs).tolist())
    assert figures == {"accuracy": 0.6, "yesno": 0.75, "said_yes": 0.25}
    assert answer_figures(count_answers([("Yes.", "yes")]).tolist()) == {"accuracy": 1.0}


def test_a_sample_spreads_over_images(tiny_model_dir: Path, tmp_path: Path) -> None:
    write_data(tmp_path, many(4, 5))
    records = read_records(tiny_model_dir, tmp_path)
    chosen = sample_records(records, 8, seed=0)
    assert chosen == sample_records(records, 8, seed=0) and len(set(chosen)) == 8
    assert sorted(index // 5 for index in chosen) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert len(sample_records(records, 1000, seed=0)) == 20


def test_pixels_are_the_processors_own(tiny_model_dir: Path, tmp_path: Path) -> None:
    write_data(tmp_path, many(1, 1))
    records = read_records(tiny_model_dir, tmp_path)
    with Image.open(tmp_path / "p0.png") as image:
        expected = records.processor.pixels(image.convert("RGB"))
    assert torch.equal(records.images.pixels(0).patches, expected.patches)

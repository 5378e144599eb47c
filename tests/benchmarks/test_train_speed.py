"""The training benchmark's own arithmetic: what it counts, and that it notices contenders that differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlavaForConditionalGeneration

from benchmarks.train_contenders import TARGETS
from benchmarks.train_job import IMAGE_SIDE, Job, write_data
from benchmarks.train_probe import attended_pairs, needed_flops
from benchmarks.train_speed import problems
from llava.train.data.packing import branch_mask
from tests.support.tiny_models import small_config


def test_needed_operations_are_those_that_torch_counts() -> None:
    """With every pair of tokens counted and every vision layer read, as torch does and counts them."""
    config: Any = small_config()
    config.vision_feature_layer = -1
    rank, tokens, supervised = 2, 40, 7
    model: Any = LlavaForConditionalGeneration(config)
    model.set_attn_implementation("eager")  # torch's counter does not know the CPU's kernel
    targets = r".*\.language_model\..*\.(" + "|".join(TARGETS) + ")"
    wrapped = get_peft_model(model, LoraConfig(r=rank, target_modules=targets))
    ids = torch.randint(3, 1000, (1, tokens))
    ids[:, 2:18] = config.image_token_id
    with FlopCounterMode(display=False) as counter:
        logits = wrapped(
            input_ids=ids,
            pixel_values=torch.randn(1, 3, 144, 144),
            logits_to_keep=supervised,
        ).logits
        logits.sum().backward()
    needed = needed_flops(
        config, rank, read=tokens, supervised=supervised, images=1, pairs=tokens**2, padded=tokens
    )
    assert counter.get_total_flops() == pytest.approx(needed, rel=1e-3)


def test_pairs_of_a_packed_row_are_fewer_than_its_square_and_more_than_nothing_shared() -> None:
    group = torch.tensor([[0, 0, 0, 0, 0, 0, 0]])
    branch = torch.tensor([[0, 0, 0, 1, 1, 2, 2]])
    # 1 + 2 + 3 in the prefix, 4 + 5 in either branch
    assert attended_pairs({"input_ids": group, "attention_mask": branch_mask(group, branch)}, -1) == 24
    assert attended_pairs({"input_ids": group, "group": group, "branch": branch}, -1) == 24
    ids = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    assert attended_pairs({"input_ids": ids, "attention_mask": ids}, 0) == 15 + 6
    assert attended_pairs({"input_ids": ids}, 0) == 15 + 6


def finished(contender: str, loss: float, supervised: int = 90) -> dict[str, Any]:
    return {
        "questions": 4, "contender": contender, "round": 0, "seconds": 1.0, "records": 16,
        "supervised": supervised, "first_loss": loss, "last_loss": 7.0,
    }  # fmt: skip


def test_contenders_that_do_another_job_are_named() -> None:
    same = [finished("ours", 7.6), finished("ours unpacked", 7.600001), finished("TRL", 7.6)]
    assert problems(same, "cpu") == []
    assert "TRL: first loss 7.7" in problems([*same[:2], finished("TRL", 7.7)], "cpu")[0]
    assert "91 supervised tokens" in problems([*same[:2], finished("TRL", 7.6, 91)], "cpu")[0]
    later = {**same[2], "last_loss": 7.1}
    assert problems([*same[:2], later], "cpu") == ["4 a picture, TRL: last loss 7.1, ours 7.0"]
    failed = {"questions": 4, "contender": "TRL", "round": 0, "failed": "trl ended with code 1"}
    assert problems([*same[:2], failed], "cpu") == ["trl ended with code 1"]


def test_data_is_made_once_and_the_same_each_time(tmp_path: Path) -> None:
    first = write_data(tmp_path, 4, 10).read_text()
    assert write_data(tmp_path, 4, 10).read_text() == first
    assert first.count('"id"') == 10
    images = sorted((tmp_path / "pictures").iterdir())
    assert len(images) == 3
    arrays = [np.asarray(Image.open(path)) for path in images]
    assert arrays[0].shape == (IMAGE_SIDE, IMAGE_SIDE, 3)
    assert (arrays[0] != arrays[1]).any()


def test_a_job_survives_the_way_to_its_process(tmp_path: Path) -> None:
    job = Job(
        folder=tmp_path, data=tmp_path / "d", result=tmp_path / "r", order=tmp_path / "o", device="cpu",
        questions=4, batch=16, warm_steps=1, steps=2, packing=True, gradient_checkpointing=False, workers=0,
    )  # fmt: skip
    job.write(tmp_path / "job")
    assert Job.read(tmp_path / "job") == job

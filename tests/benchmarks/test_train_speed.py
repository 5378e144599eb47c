"""The training benchmark's own arithmetic: what it counts, and that it notices contenders that differ."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlavaForConditionalGeneration

from benchmarks import train_llamafactory, train_speed
from benchmarks.train_job import IMAGE_SIDE, TARGETS, Job, write_data
from benchmarks.train_llamafactory import arguments, count_records, row_length, write_dataset
from benchmarks.train_probe import Probe, attended_pairs, needed_flops
from benchmarks.train_speed import measure, problems, table
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


def job_in(folder: Path) -> Job:
    return Job(
        folder=folder, data=folder / "d", result=folder / "r", order=folder / "o", device="cpu",
        questions=4, batch=16, warm_steps=1, steps=2, packing=True, gradient_checkpointing=False, workers=0,
    )  # fmt: skip


def test_a_job_survives_the_way_to_its_process(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    job.write(tmp_path / "job")
    assert Job.read(tmp_path / "job") == job


def test_a_run_without_llamafactory_says_so_once_and_goes_on(tmp_path: Path) -> None:
    console = Console(width=200, record=True)
    jobs = {1: job_in(tmp_path), 4: job_in(tmp_path)}
    results = measure(jobs, ["LLaMA-Factory", "LLaMA-Factory unpacked"], 2, console)
    assert [(r["contender"], r["questions"]) for r in results] == [("LLaMA-Factory", 1)]
    text = console.export_text()
    assert text.count("\n") == 1 and "absent: name the Python" in text and "--llamafactory-python" in text
    assert problems(results, "cpu") == []
    console.print(table(results, 1.0))
    assert "no result" in console.export_text()


def test_a_python_without_llamafactory_is_absent_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_llamafactory, "find_spec", lambda name: None)
    assert sys.executable in train_llamafactory.main(job_in(tmp_path))["absent"]


def test_a_python_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train_speed", "--llamafactory-python", "nowhere/python"])
    with pytest.raises(SystemExit) as ended:
        train_speed.main()
    assert ended.value.code == 2
    assert "--llamafactory-python: there is no nowhere/python" in capsys.readouterr().err


def test_llamafactory_reads_our_records_in_our_order(tmp_path: Path) -> None:
    job = dataclasses.replace(job_in(tmp_path), data=write_data(tmp_path, 4, 8))
    records = {record["id"]: record for record in json.loads(job.data.read_text())}
    order = sorted(records, reverse=True)
    job.order.write_text(json.dumps(order))
    write_dataset(job, tmp_path / "dataset")
    info = json.loads((tmp_path / "dataset" / "dataset_info.json").read_text())["records"]
    assert info["columns"] == {"messages": "conversations", "images": "image"}
    written = json.loads((tmp_path / "dataset" / info["file_name"]).read_text())
    assert written == [records[name] for name in order]


def test_a_step_of_llamafactory_holds_a_step_of_records(tmp_path: Path) -> None:
    packed = job_in(tmp_path)
    plain = dataclasses.replace(packed, packing=False)
    for job, flash, rows in ((packed, False, 8), (packed, True, 1), (plain, False, 16), (plain, True, 16)):
        given = arguments(job, tmp_path, 685, flash)
        records = 16 // rows
        assert given["per_device_train_batch_size"] == rows
        assert given["neat_packing"] is job.packing
        assert given["preprocessing_batch_size"] == 16
        # It keeps a token of a row free; without a multiple of 8 its positions do not fit.
        assert records * 685 < given["cutoff_len"] == row_length(685, records) < records * 685 + 9
        assert given["cutoff_len"] % 8 == 0


def test_records_are_counted_in_rows_that_hold_several(tmp_path: Path) -> None:
    probe = Probe(job_in(tmp_path), 0)
    labels = torch.tensor([[-100, -100, 5, -100, -100, 7], [-100, 5, -100, 7, -100, -100]])
    rows = {"input_ids": torch.ones(2, 6, dtype=torch.long), "labels": labels}
    mask = torch.full((2, 1, 6, 6), torch.finfo(torch.float32).min).triu(1)
    for loss in (
        7.0,
        6.5,
        6.0,
    ):  # a warm-up step and the two measured ones, each of two rows with two records
        probe._read({**rows, "attention_mask": mask, "pixel_values": torch.zeros(4, 3, 1, 1)})
        probe.losses.append(torch.tensor(loss))
    figures = count_records(probe.figures(small_config(), 2))
    assert (figures["records"], figures["supervised"], figures["read"]) == (8, 8, 24)
    assert (figures["first_loss"], figures["last_loss"]) == (7.0, 6.0)

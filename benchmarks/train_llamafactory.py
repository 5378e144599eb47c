"""LLaMA-Factory's process of benchmarks.train_speed: `PYTHON -m benchmarks.train_llamafactory JOB.json`.

It caps transformers, peft, accelerate and datasets below the versions of constraints.txt, so PYTHON is that
of an environment of its own. What it reads is ours unchanged: the conversation JSON, in the order in which
ours read it, and the base with random weights.
"""

from __future__ import annotations

import json
import shutil
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.train_job import ALPHA, LEARNING_RATE, RANK, TARGETS, Job

RECORDS_A_ROW = 2  # under SDPA, whose work grows with the square of the row: 4 cost a third more on a CPU


def write_dataset(job: Job, folder: Path) -> None:
    """Write the records in the order in which ours read them, and dataset_info.json with their keys."""
    records = {record["id"]: record for record in json.loads(job.data.read_text(encoding="utf-8"))}
    ordered = [records[name] for name in json.loads(job.order.read_text(encoding="utf-8"))]
    info = {
        "records": {
            "file_name": "records.json",
            "formatting": "sharegpt",
            "columns": {"messages": "conversations", "images": "image"},
        }
    }
    folder.mkdir(parents=True)
    (folder / "records.json").write_text(json.dumps(ordered), encoding="utf-8")
    (folder / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")


def row_length(longest: int, records: int) -> int:
    """Return the `cutoff_len` with which `records` records of at most `longest` tokens fill a packed row.

    LLaMA-Factory keeps one token of a row free, and pads rows to a multiple of 8 without their positions, so
    that another `cutoff_len` fails.
    """
    return -(-(records * longest + 1) // 8) * 8


def arguments(job: Job, folder: Path, longest: int, flash: bool) -> dict[str, Any]:
    """Return LLaMA-Factory's arguments: the settings that all contenders share, `job.batch` records a step.

    Args:
        job: The work. With `packing`, records are packed by `neat_packing`.
        folder: Holds the dataset, and takes the output.
        longest: Tokens of the longest record.
        flash: Whether FlashAttention is used, under which LLaMA-Factory takes a single row a batch.
    """
    a_row = (job.batch if flash else min(RECORDS_A_ROW, job.batch)) if job.packing else 1
    return {
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": str(job.base),
        "flash_attn": "fa2" if flash else "sdpa",
        "disable_gradient_checkpointing": not job.gradient_checkpointing,
        "finetuning_type": "lora",
        "lora_rank": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "lora_target": ",".join(TARGETS),  # of the language model: tower and projector are frozen by default
        "template": "llava",
        "dataset": "records",
        "dataset_dir": str(folder),
        "media_dir": str(job.folder),
        "overwrite_cache": True,
        "preprocessing_batch_size": job.batch,  # it packs within these: a step holds our step's records
        "disable_shuffling": True,
        "neat_packing": job.packing,
        "cutoff_len": row_length(longest, a_row),
        "per_device_train_batch_size": job.batch // a_row,
        "gradient_accumulation_steps": 1,
        "max_steps": job.all_steps,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "bf16": job.device == "cuda",
        "use_cpu": job.device == "cpu",
        "dataloader_num_workers": job.workers,
        "output_dir": str(folder / "output"),
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 0,
    }


def longest_record(job: Job) -> int:
    """Return the tokens of the longest record, its picture among them."""
    from transformers import AutoConfig, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(str(job.base))
    roles = {"human": "user", "gpt": "assistant"}
    talks = [
        [{"role": roles[turn["from"]], "content": turn["value"]} for turn in record["conversations"]]
        for record in json.loads(job.data.read_text(encoding="utf-8"))
    ]
    texts = [tokenizer.apply_chat_template(talk, tokenize=False) for talk in talks]
    picture = AutoConfig.from_pretrained(str(job.base)).image_seq_length
    return max(len(ids) for ids in tokenizer(texts)["input_ids"]) + picture - 1


def begin_with_bos() -> None:
    """Let its template for LLaVA-1.5 begin with the <s> that the model was trained with; it leaves it out."""
    from llamafactory.data.formatter import EmptyFormatter
    from llamafactory.data.template import TEMPLATES

    TEMPLATES["llava"].format_prefix = EmptyFormatter(slots=[{"bos_token"}])


def main(job: Job) -> dict[str, Any]:
    if find_spec("llamafactory") is None:
        return {"absent": f"llamafactory is not installed for {sys.executable}"}
    from llamafactory.train.tuner import run_exp
    from transformers import AutoConfig

    from benchmarks.train_probe import Probe

    folder = job.result.with_suffix(".llamafactory")
    shutil.rmtree(folder, ignore_errors=True)
    write_dataset(job, folder)
    begin_with_bos()
    config: Any = AutoConfig.from_pretrained(str(job.base))
    probe = Probe(job, int(config.text_config.pad_token_id))
    probe.install()
    flash = job.device == "cuda" and find_spec("flash_attn") is not None
    run_exp(arguments(job, folder, longest_record(job), flash))
    shutil.rmtree(folder)
    versions = {name: metadata.version(name) for name in ("llamafactory", "transformers", "peft")}
    return {**count_records(probe.figures(config, RANK)), "attention": probe.attention, "versions": versions}


def count_records(figures: dict[str, Any]) -> dict[str, Any]:
    """Return `figures` with the records that were in the rows: each brings a picture of its own, whatever
    the number of rows, and of records that share it."""
    return {**figures, "records": figures["images"]}


if __name__ == "__main__":
    given = Job.read(Path(sys.argv[1]))
    given.result.write_text(json.dumps(main(given)), encoding="utf-8")

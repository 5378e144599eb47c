"""One process of benchmarks.train_speed: `python -m benchmarks.train_contenders STEP JOB.json`.

Steps: `base` builds the model with random weights, `peak` measures matrix products, `ours` and `trl` train.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from benchmarks.train_job import ALPHA, IMAGE_SIDE, LEARNING_RATE, RANK, TARGETS, TOKENIZER_FOLDER, Job
from benchmarks.train_probe import Probe


def model_config(device: str) -> LlavaConfig:
    """LLaVA-1.5-7B's shape for CUDA, a small one of the same make for the CPU; the tiny base's tokenizer."""
    own: Any = LlavaConfig.from_pretrained(str(TOKENIZER_FOLDER))
    pad = own.text_config.pad_token_id
    if device == "cuda":
        vision = CLIPVisionConfig(
            hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16,
            image_size=IMAGE_SIDE, patch_size=14, projection_dim=768,
        )  # fmt: skip
        text = LlamaConfig(
            vocab_size=32064, max_position_embeddings=4096, rms_norm_eps=1e-5, pad_token_id=pad
        )
    else:
        vision = CLIPVisionConfig(
            hidden_size=192, intermediate_size=768, num_hidden_layers=5, num_attention_heads=3,
            image_size=IMAGE_SIDE, patch_size=14, projection_dim=192,
        )  # fmt: skip
        text = LlamaConfig(
            vocab_size=2000, hidden_size=256, intermediate_size=688, num_hidden_layers=4,
            num_attention_heads=4, max_position_embeddings=4096, rms_norm_eps=1e-5, pad_token_id=pad,
        )  # fmt: skip
    return LlavaConfig(
        vision_config=vision.to_dict(),
        text_config=text.to_dict(),
        image_token_index=own.image_token_id,
        image_seq_length=(IMAGE_SIDE // 14) ** 2,
    )


def build_base(job: Job) -> None:
    """A whole model folder; run.json and the like are not needed to train on it."""
    if (job.base / "done").is_file():
        return
    copy_processor(job.base)
    torch.manual_seed(0)
    torch.set_default_dtype(dtype_of(job))
    with torch.device(job.device):
        model = LlavaForConditionalGeneration(model_config(job.device))
    model.save_pretrained(str(job.base))
    # TRL renders the template without the tokenizer's own <s>, so the template begins with it.
    template = (job.base / "chat_template.jinja").read_text(encoding="utf-8")
    (job.base / "trl_template.jinja").write_text("{{ '<s>' }}" + template, encoding="utf-8")
    (job.base / "done").touch()


def copy_processor(folder: Path) -> None:
    """Make `folder` anew, with the tiny base's tokenizer and template, for pictures of IMAGE_SIDE."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(TOKENIZER_FOLDER, folder, ignore=shutil.ignore_patterns("*.safetensors", "README.md"))
    for name in ("processor_config.json", "preprocessor_config.json"):
        text = (folder / name).read_text().replace('"patch_size": 12', '"patch_size": 14')
        (folder / name).write_text(text.replace(": 144", f": {IMAGE_SIDE}"))


def dtype_of(job: Job) -> torch.dtype:
    return torch.bfloat16 if job.device == "cuda" else torch.float32


def matmul_peak(job: Job) -> dict[str, Any]:
    """Operations a second of square matrix products in the training's dtype: the best of several."""
    size, times = (8192, 30) if job.device == "cuda" else (2048, 5)
    a, b = (torch.randn(size, size, dtype=dtype_of(job), device=job.device) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        if job.device == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(times):
            a @ b
        if job.device == "cuda":
            torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - started) / times)
    name = torch.cuda.get_device_name() if job.device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    return {"peak_flops": 2 * size**3 / best, "device": name, "versions": versions()}


def versions() -> dict[str, str]:
    names = ("torch", "transformers", "peft", "accelerate", "trl", "datasets")
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def attention_of(job: Job) -> str:
    """FlashAttention where it is installed, as TRL's guide to less memory and more speed advises."""
    try:
        metadata.version("flash-attn")
    except metadata.PackageNotFoundError:
        return "sdpa"
    return "flash_attention_2" if job.device == "cuda" else "sdpa"


def train_ours(job: Job, probe: Probe) -> None:
    """The command's own code, from its settings on."""
    from llava.model.run_dir import LoraSettings
    from llava.train.config import TrainSettings
    from llava.train.finetune import train

    settings = TrainSettings(
        model_name_or_path=str(job.base),
        data_path=job.data,
        image_folder=job.folder,
        output_dir=job.result.with_suffix(".run"),
        overwrite_output_dir=True,
        lora=LoraSettings(rank=RANK, alpha=ALPHA, dropout=0.0, language_targets=TARGETS),
        freeze_projector=True,
        max_steps=job.all_steps,
        batch_size=job.batch // job.questions,
        gradient_accumulation_steps=1,
        learning_rate=LEARNING_RATE,
        lr_scheduler="constant",
        warmup_ratio=0.0,
        packing=job.packing,
        attn_implementation=job.attention,
        dataloader_workers=job.workers,
        picture_cache_gb=0,  # TRL decodes its pictures at every step
        dtype="bfloat16" if job.device == "cuda" else "float32",
        gradient_checkpointing=job.gradient_checkpointing,
    )
    train(settings)
    if job.packing:
        job.order.write_text(json.dumps(probe.record_ids), encoding="utf-8")
    shutil.rmtree(settings.output_dir)


def train_trl(job: Job) -> None:
    """TRL's SFTTrainer as its documentation fine-tunes a vision-language model with LoRA: the dataset has
    `messages` and `images`, `max_length=None`, no packing (it refuses to pack pictures), the model by path.
    Learning rate, adapters and batch are ours; the records come in the order in which ours read them."""
    from datasets import Dataset, Image, List
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]  # TRL imports its names lazily

    records = {record["id"]: record for record in json.loads(job.data.read_text(encoding="utf-8"))}
    ordered = [records[name] for name in json.loads(job.order.read_text(encoding="utf-8"))]
    roles = {"human": "user", "gpt": "assistant"}
    dataset = Dataset.from_dict(
        {
            "messages": [
                [
                    {"role": roles[turn["from"]], "content": turn["value"].removeprefix("<image>\n")}
                    for turn in record["conversations"]
                ]
                for record in ordered
            ],
            "images": [[str(job.folder / record["image"])] for record in ordered],
        }
    ).cast_column("images", List(Image()))
    trainer = SFTTrainer(
        model=str(job.base),
        args=SFTConfig(
            output_dir=str(job.result.with_suffix(".trl")),
            model_init_kwargs={
                "dtype": str(dtype_of(job)).removeprefix("torch."),
                "attn_implementation": attention_of(job),
            },
            chat_template_path=str(job.base / "trl_template.jinja"),
            assistant_only_loss=True,
            max_length=None,
            per_device_train_batch_size=job.batch,
            gradient_accumulation_steps=1,
            max_steps=job.all_steps,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            bf16=job.device == "cuda",
            use_cpu=job.device == "cpu",
            gradient_checkpointing=job.gradient_checkpointing,
            train_sampling_strategy="sequential",
            dataloader_num_workers=job.workers,
            dataloader_pin_memory=job.device == "cuda",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=0,
        ),
        train_dataset=dataset,
        peft_config=LoraConfig(
            r=RANK,
            lora_alpha=ALPHA,
            lora_dropout=0.0,
            target_modules=r".*\.language_model\..*\.(" + "|".join(TARGETS) + ")",
        ),
    )
    trainer.train()


def main(step: str, job: Job) -> dict[str, Any]:
    if step == "base":
        build_base(job)
        return {}
    if step == "peak":
        return matmul_peak(job)
    if step == "trl":
        try:
            import trl  # noqa: F401
            from datasets import Dataset  # noqa: F401
        except ImportError as error:
            return {"absent": str(error)}
    config: Any = LlavaConfig.from_pretrained(str(job.base))
    probe = Probe(job, int(config.text_config.pad_token_id))
    probe.install()
    if step == "trl":
        train_trl(job)
    else:
        train_ours(job, probe)
    return {**probe.figures(config, RANK), "attention": probe.attention}


if __name__ == "__main__":
    given = Job.read(Path(sys.argv[2]))
    given.result.write_text(json.dumps(main(sys.argv[1], given)), encoding="utf-8")

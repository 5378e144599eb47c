"""Train a LoRA adapter with TRL and compute with it, for tests/interop/check_trl.py, which runs this with the
Python that has TRL:

    trl_adapter.py JOB.json ANSWERS.json

Nothing of ours is imported.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from datasets import Dataset, Image, List
from peft import LoraConfig
from transformers_answers import Inputs
from trl import SFTConfig, SFTTrainer


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    messages = [
        [{"role": "user", "content": one["text"]}, {"role": "assistant", "content": one["answer"]}]
        for one in job["questions"]
    ]
    pictures = [[one["picture"]] for one in job["questions"]]
    dataset = Dataset.from_dict({"messages": messages, "images": pictures})
    trainer = SFTTrainer(
        model=job["base"],
        args=SFTConfig(
            output_dir=job["adapter"],
            model_init_kwargs={"dtype": "float32"},
            max_length=None,
            per_device_train_batch_size=4,
            max_steps=5,
            learning_rate=1e-2,
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            dataloader_pin_memory=False,
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=dataset.cast_column("images", List(Image())),
        peft_config=LoraConfig(r=8, target_modules=["q_proj", "v_proj", "down_proj"]),
    )
    trainer.train()
    trainer.save_model(job["adapter"])
    model, make_inputs = trainer.model.eval(), Inputs(job["base"], onevision=False)
    with torch.inference_mode():
        logits = [model(**make_inputs(one)).logits[0, -1].tolist() for one in job["questions"]]
    Path(sys.argv[2]).write_text(json.dumps({"logits": logits}))


if __name__ == "__main__":
    main()

"""Next-token logits and greedy answers of plain transformers, for tests/interop/check_transformers.py, which
runs this with the Python of any release from 4.51 on:

    transformers_answers.py JOB.json ANSWERS.json

Its own processor renders the chat template, tokenises and prepares the picture. Nothing of ours is imported.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

# OneVision's processor wants torchvision for its videos; its parts do not, in 5 when asked
BACKEND = {} if transformers.__version__.startswith("4.") else {"backend": "pil"}


class Inputs:
    """Makes a model's inputs of a question and a picture."""

    def __init__(self, folder: str, onevision: bool) -> None:
        self.processor = None if onevision else AutoProcessor.from_pretrained(folder)
        if onevision:
            self.tokenizer = AutoTokenizer.from_pretrained(folder)
            self.images = AutoImageProcessor.from_pretrained(folder, **BACKEND)

    def __call__(self, question: dict[str, Any]) -> Any:
        turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question["text"]}]}]
        image = Image.open(question["picture"]).convert("RGB")
        if self.processor is not None:
            text = self.processor.apply_chat_template(turns, add_generation_prompt=True)
            return self.processor(images=image, text=text, return_tensors="pt")
        text = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        text = text.replace("<image>", "<image>" * question["image_tokens"])
        return {**self.tokenizer(text, return_tensors="pt"), **self.images(image, return_tensors="pt")}


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    folder = job["folder"]
    model = AutoModelForImageTextToText.from_pretrained(folder).float().eval()
    make_inputs = Inputs(folder, model.config.model_type == "llava_onevision")
    logits, answers = [], []
    for question in job["questions"]:
        inputs = make_inputs(question)
        with torch.inference_mode():
            logits.append(model(**inputs).logits[0, -1].tolist())
            ids = model.generate(**inputs, max_new_tokens=job["limit"], do_sample=False)
        answers.append(ids[0, inputs["input_ids"].shape[1] :].tolist())
    Path(sys.argv[2]).write_text(json.dumps({"logits": logits, "answers": answers}))


if __name__ == "__main__":
    main()

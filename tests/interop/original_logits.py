"""Next-token logits of the original LLaVA, for tests/interop/check_original.py, which runs this with the
original's own Python:

    original_logits.py MODEL QUESTION PICTURE... --conv-mode MODE --output FILE

Nothing of the original is changed. It loads every model in float16; the check compares in float32, so the
model is cast after loading (its weights are float16 numbers, so nothing is lost) and the rotary tables, which
it had computed in float16, are computed again by its own function.
"""

import argparse
import json
from pathlib import Path

import torch
from PIL import Image

from llava.constants import IMAGE_TOKEN_INDEX
from llava.conversation import conv_templates
from llava.mm_utils import get_model_name_from_path, process_images, tokenizer_image_token
from llava.model.builder import load_pretrained_model


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("question")
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--conv-mode", required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    name = get_model_name_from_path(args.model)
    tokenizer, model, image_processor, context = load_pretrained_model(args.model, None, name, device="cpu")
    model.float()
    for layer in model.model.layers:
        rotary = layer.self_attn.rotary_emb
        rotary.inv_freq = 1 / rotary.base ** (
            torch.arange(0, rotary.dim, 2, dtype=torch.int64).float() / rotary.dim
        )
        rotary._set_cos_sin_cache(rotary.max_position_embeddings, torch.device("cpu"), torch.float32)

    conv = conv_templates[args.conv_mode].copy()
    conv.append_message(conv.roles[0], "<image>\n" + args.question)
    conv.append_message(conv.roles[1], None)
    ids = tokenizer_image_token(conv.get_prompt(), tokenizer, IMAGE_TOKEN_INDEX, return_tensors="pt")[None]
    logits = []
    for path in args.pictures:
        image = Image.open(path).convert("RGB")
        made = process_images([image], image_processor, model.config)
        pixels = [one.float() for one in made] if isinstance(made, list) else made.float()
        with torch.inference_mode():
            output = model(ids, images=pixels, image_sizes=[image.size])
        logits.append(output.logits[0, -1].tolist())
    found = {
        "ids": ids[0].tolist(), "logits": logits, "context": context, "model_class": type(model).__name__,
    }  # fmt: skip
    args.output.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()

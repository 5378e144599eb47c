"""Rebuild the embedded base model playground/tiny-llava from rendered generic scenes.

    python scripts/build_tiny_base.py                 # all stages, on a GPU if there is one
    python scripts/build_tiny_base.py --stage vision  # one stage; `vision` and `language` resume after a kill

Stages, in order:
  tokenizer  a SentencePiece BPE with byte fallback, trained on the questions and a word list
  vision     the CLIP tower learns dense labels: which shapes, colours and row conditions lie in each patch
  language   projector and Llama learn to answer questions about the scenes; the tower is frozen
  score      held-out scores per question family and feature AUCs, written to the model card

The work folder (default build/tiny_base) keeps the state of each stage; the model is written to --output.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, wherever it is called from

import llava  # noqa: F401  # before what only the right Python has

# isort: split
import torch
from tiny_base.model import build_tokenizer, new_model, save_model
from tiny_base.scoring import DenseHead, answer_scores, dense_scores, device_and_autocast, write_card
from tiny_base.training import train_language, train_vision
from transformers import LlavaForConditionalGeneration

from llava.model.builder import load_model

STAGES = ["tokenizer", "vision", "language", "score"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stage", choices=STAGES, action="append", help="default: all of them, in order")
    parser.add_argument("--work", type=Path, default=Path("build/tiny_base"), help="state of the stages")
    parser.add_argument(
        "--output", type=Path, default=Path("playground/tiny-llava"), help="the model's folder"
    )
    parser.add_argument("--vision-steps", type=int, default=8600, help="of 64 pictures")
    parser.add_argument("--language-steps", type=int, default=4400, help="of 16 pictures")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="fuse the tower's kernels: 1.2 times faster, needs a C++ compiler",
    )
    args = parser.parse_args()
    stages = args.stage or STAGES
    model = new_model()
    if "tokenizer" in stages:
        save_model(model, build_tokenizer(args.output), args.output)
        model = new_model()
    processor = load_model(args.output, device="cpu").processor
    if "vision" in stages:
        train_vision(args.work, model, args.vision_steps, 64, args.compile)
    head = DenseHead()
    vision = torch.load(args.work / "vision.pt", weights_only=True)
    model.model.vision_tower.load_state_dict(vision["tower"])
    head.load_state_dict(vision["head"])
    if "language" in stages:
        train_language(args.work, model, processor, args.language_steps, 16)
        save_model(model, processor.tokenizer, args.output)
    if "score" in stages:
        device = device_and_autocast()[0]
        model = LlavaForConditionalGeneration.from_pretrained(args.output, dtype=torch.float32)
        model.to(device)  # type: ignore[arg-type]  # transformers' wrapper of `to` hides its self
        features = dense_scores(model, head.to(device), chunks=40)
        language = torch.load(args.work / "language.pt", weights_only=True)
        steps = (
            f"{vision['step'] * 64:,} pictures for the tower, then {language['step'] * 16:,} to talk about"
        )
        answers = answer_scores(args.output)
        write_card(args.output, features, answers, steps)
        print(features, *(f"{f} {share:.3f} ({n})" for f, (share, n) in answers.items()), sep="\n")


if __name__ == "__main__":
    main()

"""Rebuild the embedded base model playground/tiny-llava from rendered generic scenes.

    python scripts/build_tiny_base.py                 # all stages, on a GPU if there is one
    python scripts/build_tiny_base.py --stage vision  # one stage; `vision` and `language` resume after a kill

Stages, in order:
  tokenizer  a SentencePiece BPE with byte fallback, trained on the questions and a word list
  vision     the CLIP tower learns dense labels: which shapes, colours and row conditions lie in each patch
  language   projector and Llama learn to answer questions about the scenes, the tower follows more slowly
  score      held-out scores per question family and feature AUCs, written to the model card

The work folder (default build/tiny_base) keeps the state of each stage; the model is written to --output.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from generic_scenes import CHANNELS, CONDITIONS, GRID, PATCH, SIZE, Scene, render
from torch import nn
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

WIDTH = 160
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's
TRAIN_SEED, HELD_OUT_SEED = 1, 2


def new_model(vocabulary: int) -> LlavaForConditionalGeneration:
    """The model with random weights. `<image>` and `<pad>` follow the `vocabulary` SentencePiece pieces."""
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=6,
        num_attention_heads=5,
        image_size=SIZE,
        patch_size=PATCH,
        projection_dim=WIDTH,
    )
    text = LlamaConfig(
        vocab_size=math.ceil((vocabulary + 2) / 64) * 64,
        hidden_size=WIDTH,
        intermediate_size=448,
        num_hidden_layers=4,
        num_attention_heads=5,
        num_key_value_heads=5,
        max_position_embeddings=2048,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=vocabulary + 1,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=vocabulary,
        image_seq_length=GRID * GRID,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        pad_token_id=vocabulary + 1,
    )
    torch.manual_seed(0)
    return LlavaForConditionalGeneration(config)


def device_and_autocast() -> tuple[torch.device, torch.autocast]:
    """A GPU if there is one; bf16 only where the processor has it natively (else it is many times slower)."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    native = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return device, torch.autocast(device.type, torch.bfloat16, enabled=native)


class _Scenes(torch.utils.data.Dataset):
    """Chunk `i` is scenes i * size ... of `seed`: pictures (size, 144, 144, 3) uint8 and dense labels."""

    def __init__(self, seed: int, size: int, chunks: int) -> None:
        self.seed, self.size, self.chunks = seed, size, chunks

    def __len__(self) -> int:
        return self.chunks

    def __getitem__(self, chunk: int) -> tuple[np.ndarray, np.ndarray, list[Scene]]:
        scenes = [render(self.seed, chunk * self.size + i) for i in range(self.size)]
        return np.stack([np.asarray(s.image) for s in scenes]), np.stack([s.labels for s in scenes]), scenes


def scene_chunks(seed: int, size: int, first: int, last: int, workers: int) -> Iterator[tuple[np.ndarray, np.ndarray, list[Scene]]]:
    dataset = torch.utils.data.Subset(_Scenes(seed, size, last), range(first, last))
    yield from torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=workers, prefetch_factor=8 if workers else None, collate_fn=lambda chunk: chunk)


def to_pixels(pictures: np.ndarray, device: torch.device) -> torch.Tensor:
    """uint8 (B, H, W, 3) -> normalised float (B, 3, H, W)."""
    pixels = torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2).float() / 255
    return (pixels - pixels.new_tensor(MEAN).view(3, 1, 1)) / pixels.new_tensor(STD).view(3, 1, 1)


def optimizers(modules: list[nn.Module], lr: float, matrix_lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the inner matrices of transformer layers, AdamW for all else."""
    named = [(n, p) for m in modules for n, p in m.named_parameters() if p.requires_grad]
    matrices = [p for n, p in named if p.ndim == 2 and ".layers." in f".{n}"]
    others = [p for n, p in named if not (p.ndim == 2 and ".layers." in f".{n}")]
    return [
        torch.optim.Muon(matrices, lr=matrix_lr, weight_decay=0.02, momentum=0.95),
        torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=0.02),
    ]


def schedule(step: int, steps: int, warmup: int = 100, decay: float = 0.4) -> float:
    """Learning rate factor: linear warm-up, constant, linear decay over the last `decay` share."""
    return min((step + 1) / warmup, 1.0, max(0.0, (steps - step) / (decay * steps)))


class DenseHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.out = nn.Linear(WIDTH, len(CHANNELS))
        nn.init.constant_(self.out.bias, -4.0)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.out(self.norm(features))


def vision_features(model: LlavaForConditionalGeneration, pixels: torch.Tensor) -> torch.Tensor:
    """What LLaVA's projector sees: the patches (B, GRID * GRID, WIDTH) after the last layer but one."""
    tower = model.model.vision_tower
    hidden = tower.pre_layrnorm(tower.embeddings(pixels))
    for layer in tower.encoder.layers[:-1]:
        hidden = layer(hidden, None)
    return hidden[:, 1:]


def train_vision(work: Path, model: LlavaForConditionalGeneration, steps: int, batch: int) -> None:
    """Dense labels. Half of each batch is new scenes, half comes again from the last 8,192, flipped or turned."""
    device, autocast = device_and_autocast()
    torch.manual_seed(1)
    head = DenseHead().to(device)
    model.to(device).train()
    opts = optimizers([model.model.vision_tower, head], lr=1.5e-3, matrix_lr=0.01)
    base = [g["lr"] for o in opts for g in o.param_groups]
    state_file = work / "vision.pt"
    first = 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        first = state["step"]
        model.model.vision_tower.load_state_dict(state["tower"])
        head.load_state_dict(state["head"])
        for o, s in zip(opts, state["opts"], strict=True):
            o.load_state_dict(s)
    rng = np.random.default_rng((7, first))
    weight = torch.ones(len(CHANNELS), device=device)
    weight[[CHANNELS.index(c) for c in CONDITIONS]] = 4.0
    pool: list[tuple[np.ndarray, np.ndarray]] = []
    fresh = batch // 2
    started, running = time.time(), 0.0
    for step, (pictures, labels, _) in enumerate(scene_chunks(TRAIN_SEED, fresh, first, steps, workers=1), start=first):
        if step == 1 + first or len(pool) * fresh < 8192:
            pool.append((pictures, labels))
        else:
            pool[int(rng.integers(len(pool)))] = (pictures, labels)
        old_pictures, old_labels = pool[int(rng.integers(len(pool)))]
        if rng.random() < 0.5:
            old_pictures, old_labels = old_pictures[:, :, ::-1], old_labels[:, :, ::-1]
        turns = int(rng.integers(4))
        old_pictures, old_labels = np.rot90(old_pictures, turns, (1, 2)), np.rot90(old_labels, turns, (1, 2))
        pixels = to_pixels(np.concatenate([pictures, old_pictures]), device)
        truth = torch.from_numpy(np.concatenate([labels, old_labels])).to(device).flatten(1, 2).float()
        factor = schedule(step, steps)
        for group, lr in zip((g for o in opts for g in o.param_groups), base, strict=True):
            group["lr"] = lr * factor
        with autocast:
            logits = head(vision_features(model, pixels))
        loss = (nn.functional.binary_cross_entropy_with_logits(logits.float(), truth, reduction="none") * weight).mean()
        loss.backward()
        nn.utils.clip_grad_norm_([*model.model.vision_tower.parameters(), *head.parameters()], 1.0)
        for o in opts:
            o.step()
            o.zero_grad(set_to_none=True)
        running += loss.item()
        if (step + 1) % 100 == 0:
            rate = (step + 1 - first) * batch / (time.time() - started)
            print(f"vision {step + 1}/{steps} loss {running / 100:.5f} {rate:.0f} pictures/s", flush=True)
            running = 0.0
        if (step + 1) % 500 == 0 or step + 1 == steps:
            save_state(state_file, step + 1, tower=model.model.vision_tower.state_dict(), head=head.state_dict(), opts=[o.state_dict() for o in opts])
            print(f"  held out: {dense_scores(model, head)}", flush=True)


def save_state(file: Path, step: int, **state: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".tmp")
    torch.save({"step": step, **state}, temporary)
    temporary.replace(file)


def area_under_curve(scores: np.ndarray, truth: np.ndarray) -> float:
    """ROC AUC by the rank-sum formula (Mann and Whitney, 1947); ties get their mean rank."""
    values, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positive = int(truth.sum())
    return float((ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * (len(truth) - positive)))


@torch.no_grad()
def dense_scores(model: LlavaForConditionalGeneration, head: DenseHead, chunks: int = 20) -> dict[str, float]:
    """On held-out scenes: AUC per row condition against whole rows (the picture's highest patch), and the
    mean per-patch recall of shapes and colours."""
    device, autocast = device_and_autocast()
    best, truth, conditions = [], [], []
    for pictures, labels, scenes in scene_chunks(HELD_OUT_SEED, 64, 0, chunks, workers=0):
        with autocast:
            logits = head(vision_features(model, to_pixels(pictures, device))).float().cpu().numpy()
        best.append(logits.max(1))
        truth.append((logits.reshape(-1, len(CHANNELS)) > 0, labels.reshape(-1, len(CHANNELS))))
        conditions += [(s.row.condition or "whole") if s.row else "" for s in scenes]
    found, there = (np.concatenate(part) for part in zip(*truth, strict=True))
    top, kinds = np.concatenate(best), np.array(conditions)
    scores = {}
    for name in CONDITIONS:
        chosen = (kinds == name) | (kinds == "whole")
        scores[name] = round(area_under_curve(top[chosen, CHANNELS.index(name)], kinds[chosen] == name), 3)
    recall = (found & there).sum(0) / np.maximum(there.sum(0), 1)
    precision = (found & there).sum(0) / np.maximum(found.sum(0), 1)
    f1 = 2 * recall * precision / np.maximum(recall + precision, 1e-9)
    scores["shape_f1"] = round(float(f1[: CHANNELS.index("element")].mean()), 3)
    scores["colour_f1"] = round(float(f1[CHANNELS.index(CONDITIONS[-1]) + 1 :].mean()), 3)
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=["tokenizer", "vision", "language", "score"], action="append")
    parser.add_argument("--work", type=Path, default=Path("build/tiny_base"))
    parser.add_argument("--output", type=Path, default=Path("playground/tiny-llava"))
    parser.add_argument("--vision-steps", type=int, default=6000)
    args = parser.parse_args()
    model = new_model(1024)
    train_vision(args.work, model, args.vision_steps, 64)


if __name__ == "__main__":
    main()

"""What both the training stages and the scores look at: batches of scenes, dense labels, held-out answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import LlavaForConditionalGeneration

from llava.common.files import write_text
from llava.inference.engine import Engine, Request
from llava.model.builder import bfloat16_is_native, load_model
from tiny_base.canvas import CHANNELS, COLOURS, CONDITIONS, HELD_OUT_SEED
from tiny_base.model import MEAN, STD, WIDTH
from tiny_base.questions import questions
from tiny_base.scenes import Scene, render

AIM = 0.9  # what makes the base good enough to tune on
HELD_OUT_STREAM = 10_000_000  # scenes of the answer scores come after those of the feature AUCs


def device_and_autocast() -> tuple[torch.device, torch.autocast]:
    """A GPU if there is one; bf16 only where the processor has it natively (else it is many times slower)."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return device, torch.autocast(device.type, torch.bfloat16, enabled=bfloat16_is_native(device))


class _Scenes(torch.utils.data.Dataset):
    """Chunk `i` is scenes i * size ... of `seed`: pictures (size, 144, 144, 3) uint8 and dense labels. From
    chunk `close_from` on, three scenes of four are `close` ones."""

    def __init__(self, seed: int, size: int, chunks: int, close_from: int, crowded: bool) -> None:
        self.seed, self.size, self.chunks = seed, size, chunks
        self.close_from, self.crowded = close_from, crowded

    def __len__(self) -> int:
        return self.chunks

    def __getitem__(self, chunk: int) -> tuple[np.ndarray, np.ndarray, list[Scene]]:
        close = chunk >= self.close_from
        scenes = [
            render(
                self.seed, chunk * self.size + i, close=close and i % 4 > 0, crowded=self.crowded and close
            )
            for i in range(self.size)
        ]
        return np.stack([np.asarray(s.image) for s in scenes]), np.stack([s.labels for s in scenes]), scenes


def scene_chunks(
    seed: int,
    size: int,
    first: int,
    last: int,
    *,
    workers: int = 0,
    close_from: int = 0,
    crowded: bool = False,
) -> Iterator[tuple[np.ndarray, np.ndarray, list[Scene]]]:
    dataset = torch.utils.data.Subset(_Scenes(seed, size, last, close_from, crowded), range(first, last))
    yield from torch.utils.data.DataLoader(
        dataset,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=8 if workers else None,
        collate_fn=lambda chunk: chunk,
    )


def to_pixels(images: np.ndarray, device: torch.device) -> torch.Tensor:
    """uint8 (B, H, W, 3) -> normalised float (B, 3, H, W)."""
    pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255
    return (pixels - pixels.new_tensor(MEAN).view(3, 1, 1)) / pixels.new_tensor(STD).view(3, 1, 1)


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


def area_under_curve(scores: np.ndarray, truth: np.ndarray) -> float:
    """ROC AUC by the rank-sum formula (Mann and Whitney, 1947); ties get their mean rank."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positive = int(truth.sum())
    return float((ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * (len(truth) - positive)))


@torch.no_grad()
def dense_scores(model: LlavaForConditionalGeneration, head: DenseHead, chunks: int = 20) -> dict[str, float]:
    """On held-out scenes: AUC per row condition against whole rows (the picture's highest patch), and the
    mean per-patch recall of shapes and colours."""
    device, autocast = device_and_autocast()
    best, truth, conditions = [], [], []
    for images, labels, scenes in scene_chunks(HELD_OUT_SEED, 64, 0, chunks):
        with autocast:
            logits = head(vision_features(model, to_pixels(images, device))).float().cpu().numpy()
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
    scores["colour_f1"] = round(float(f1[[CHANNELS.index(c) for c in COLOURS]].mean()), 3)
    return scores


def answer_scores(folder: Path, scenes: int = 400) -> dict[str, tuple[float, int]]:
    """Share of exact answers and number of questions per family, on held-out scenes, through the engine."""
    engine = Engine(load_model(folder, device=str(device_and_autocast()[0])))
    rng = np.random.default_rng((HELD_OUT_SEED, HELD_OUT_STREAM))
    requests: list[Request] = []
    truths: list[tuple[str, str]] = []
    for index in range(scenes):
        # Indices that the feature AUCs of the vision stage do not use.
        scene = render(HELD_OUT_SEED, HELD_OUT_STREAM + index, close=index % 2 == 0)
        for family, question, answer in questions(scene, rng):
            requests.append(Request(len(requests), question, [scene.image]))
            truths.append((family, answer))
    results = engine.answer(requests, batch_size=64, max_new_tokens=60)
    right: dict[str, list[bool]] = {}
    for (family, answer), result in zip(truths, results, strict=True):
        right.setdefault(family, []).append(result.text == answer)
    return {family: (sum(hits) / len(hits), len(hits)) for family, hits in sorted(right.items())}


def write_card(
    folder: Path, features: dict[str, float], answers: dict[str, tuple[float, int]], steps: str
) -> None:
    """The model card: what it is, what it learned from, what it can do on scenes it has not seen."""
    conditions = "".join(f"| {name} | {features[name]:.3f} |\n" for name in CONDITIONS)
    families = "".join(f"| {name} | {share:.3f} | {count} |\n" for name, (share, count) in answers.items())
    yes_no = ("any_colour", "presence", "row_has", "row_presence", "row_whole")
    short = [name for name in CONDITIONS if features[name] < AIM]
    short += [name for name in (*yes_no, "colour", "row_colour") if answers[name][0] < AIM]
    parameters = sum(p.numel() for p in LlavaForConditionalGeneration.from_pretrained(folder).parameters())
    write_text(
        folder / "README.md",
        CARD.format(
            parameters=f"{parameters / 1e6:.1f} M",
            size=f"{(folder / 'model.safetensors').stat().st_size / 1e6:.1f} MB",
            steps=steps,
            conditions=conditions,
            families=families,
            aim=AIM,
            yes_no=", ".join(yes_no),
            short=", ".join(short) or "none",
            shape_f1=features["shape_f1"],
            colour_f1=features["colour_f1"],
        ),
    )


CARD = """\
---
license: apache-2.0
pipeline_tag: image-text-to-text
tags: [llava, llava-inspect]
---

# tiny-llava: the embedded base of LLaVA Inspect

A LLaVA-1.5 of {parameters} parameters ({size} in fp16): CLIP vision tower (144-pixel pictures, patches of 12,
6 layers x 160, features from the last layer but one), two-layer MLP projector, Llama (4 layers x 160) and a
SentencePiece BPE of 1,024 pieces with byte fallback. It exists so that the whole road from photos to a merged
model runs on two CPU cores in minutes. It has never seen an insulator, a photo or a defect of anything real.

## Data and recipe

Everything is rendered and asked about by `scripts/tiny_base/` (scenes.py, questions.py): shapes and rows of
repeated elements on textures; a row may have a gap, a broken, an odd or a stained element, a dull run or a
tangle of lines. `python scripts/build_tiny_base.py` rebuilds the model: {steps}.
The tower learns dense labels per patch first and is then frozen; projector and Llama learn the questions.
Muon for matrices, AdamW for the rest; bf16 autocast where the processor has it, so a rebuild is equal in
quality, not in bits.

## Held-out scores

Scenes of seeds that training never used. ROC AUC of the tower's own features (highest patch of the dense
head) for rows with a condition against whole rows:

| condition | AUC |
|---|---|
{conditions}
Per patch, mean F1 over the shapes {shape_f1:.3f}, over the colours {colour_f1:.3f}.

Questions answered exactly (greedy):

| family | accuracy | questions |
|---|---|---|
{families}
The yes/no families are {yes_no}. `repeat`, the text-only exercise,
teaches the vocabulary and is not scored.

**Aim:** every AUC, every yes/no family and the colour families at {aim} or more. Not reached: {short}.
"""

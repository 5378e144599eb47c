"""The two training stages of the embedded base; both resume from their state file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import LlavaForConditionalGeneration

from llava.common.records import IMAGE_PLACEHOLDER
from llava.conversation import Speaker
from llava.processing.text import RecordProcessor
from llava.processing.vision import Pixels
from llava.train.data.packing import (
    Batch,
    EncodedRecord,
    build_row,
    collate,
    group_by_image,
    pack_rows,
    packed_loss,
)
from tiny_base.canvas import CHANNELS, CONDITIONS, TRAIN_SEED
from tiny_base.model import CONTEXT, WIDTH
from tiny_base.questions import WORDS, Pair, questions, repeat_exercise
from tiny_base.scenes import render
from tiny_base.scoring import (
    DenseHead,
    dense_scores,
    device_and_autocast,
    scene_chunks,
    to_pixels,
    vision_features,
)

CLOSE_FROM = 300  # vision step from which rows seen from near prevail: easy things first
LESSON_STREAM = 10_000_000  # scenes of the language stage come after those of the vision stage


def optimizers(modules: list[nn.Module], lr: float, matrix_lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the inner matrices of transformer layers, AdamW for all else."""
    named = [(n, p) for m in modules for n, p in m.named_parameters() if p.requires_grad]
    matrices = [p for n, p in named if p.ndim == 2 and ".layers." in f".{n}"]
    others = [p for n, p in named if not (p.ndim == 2 and ".layers." in f".{n}")]
    return [
        torch.optim.Muon(matrices, lr=matrix_lr, weight_decay=0.02, momentum=0.95),
        torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=0.02),
    ]


def schedule(step: int, steps: int, warmup: int = 100, decay: float = 0.3) -> float:
    """Learning rate factor: linear warm-up, constant, linear decay over the last `decay` share."""
    return min((step + 1) / warmup, 1.0, max(0.0, (steps - step) / (decay * steps)))


def train_vision(
    work: Path, model: LlavaForConditionalGeneration, steps: int, batch: int, fuse: bool = False
) -> None:
    """Dense labels. Half of each batch is new, half comes again from the last 8,192 scenes, turned. `fuse`
    compiles the tower (torch.compile, which needs a C++ compiler)."""
    device, autocast = device_and_autocast()
    torch.manual_seed(1)
    head = DenseHead().to(device)
    model.to(device).train()  # type: ignore[arg-type]  # transformers' wrapper of `to` hides its self
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
    conditions = [CHANNELS.index(c) for c in CONDITIONS]
    features = torch.compile(vision_features) if fuse else vision_features
    pool: list[tuple[np.ndarray, np.ndarray]] = []
    fresh = batch // 2
    started, running = time.time(), 0.0
    for step, (images, labels, _) in enumerate(
        scene_chunks(TRAIN_SEED, fresh, first, steps, workers=1, close_from=CLOSE_FROM, crowded=True),
        start=first,
    ):
        if step == 1 + first or len(pool) * fresh < 8192:
            pool.append((images, labels))
        else:
            pool[int(rng.integers(len(pool)))] = (images, labels)
        old_images, old_labels = pool[int(rng.integers(len(pool)))]
        if rng.random() < 0.5:
            old_images, old_labels = old_images[:, :, ::-1], old_labels[:, :, ::-1]
        turns = int(rng.integers(4))
        old_images, old_labels = np.rot90(old_images, turns, (1, 2)), np.rot90(old_labels, turns, (1, 2))
        pixels = to_pixels(np.concatenate([images, old_images]), device)
        truth = torch.from_numpy(np.concatenate([labels, old_labels])).to(device).flatten(1, 2).float()
        weight[conditions] = 2.0 if step < CLOSE_FROM else 8.0
        factor = schedule(step, steps)
        for group, lr in zip((g for o in opts for g in o.param_groups), base, strict=True):
            group["lr"] = lr * factor
        with autocast:
            logits = head(features(model, pixels))
        loss = (
            nn.functional.binary_cross_entropy_with_logits(logits.float(), truth, reduction="none") * weight
        ).mean()
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
            save_state(
                state_file,
                step + 1,
                tower=model.model.vision_tower.state_dict(),
                head=head.state_dict(),
                opts=[o.state_dict() for o in opts],
            )
            print(f"  held out: {dense_scores(model, head)}", flush=True)


class _Lessons(torch.utils.data.Dataset):
    """Batch `i` of the language stage: `pictures` scenes with their questions packed behind them, three of
    them as one conversation, and a text-only exercise for every two scenes, collated as the trainer collates
    (`llava.train.data.packing`)."""

    def __init__(self, processor: RecordProcessor, images: int, batches: int) -> None:
        self.processor, self.images, self.batches = processor, images, batches

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, batch: int) -> Batch:
        rng = np.random.default_rng((TRAIN_SEED, LESSON_STREAM, batch))
        records: list[EncodedRecord] = []
        images = {}
        for i in range(self.images):
            scene = render(TRAIN_SEED, LESSON_STREAM + batch * self.images + i, close=i % 2 == 0)
            key = f"scene {i}"
            images[key] = np.asarray(scene.image)
            asked = questions(scene, rng)
            for conversation in [*([pair] for pair in asked[:8]), asked[-3:]]:
                records.append(self._encode(conversation, (key,)))
        records += [self._encode([repeat_exercise(rng, WORDS)], ()) for _ in range(self.images // 2)]
        groups = group_by_image(records, self.processor.image_token_id, CONTEXT)
        rows = [build_row(row) for row in pack_rows(groups, CONTEXT, WIDTH)]
        return collate(
            rows,
            lambda key: Pixels(
                to_pixels(images[key][None].copy(), torch.device("cpu")), images[key].shape[:2]
            ),
            self.processor.vision,
            pad_token_id=self.processor.tokenizer.pad_token_id,
        )

    def _encode(self, conversation: list[Pair], images: tuple[str, ...]) -> EncodedRecord:
        """One conversation; the pictures come with its first question."""
        turns: list[tuple[Speaker, str]] = []
        for number, (_, question, answer) in enumerate(conversation):
            mark = f"{IMAGE_PLACEHOLDER}\n" * len(images) if number == 0 else ""
            turns += [("human", mark + question), ("gpt", answer)]
        encoded = self.processor.encode(turns)
        return EncodedRecord.of(conversation[0][1], encoded.input_ids, encoded.labels, images)


def train_language(
    work: Path, model: LlavaForConditionalGeneration, processor: RecordProcessor, steps: int, batch: int
) -> None:
    """Projector and Llama learn the questions; the tower keeps what the vision stage taught it."""
    device, autocast = device_and_autocast()
    torch.manual_seed(2)
    model.to(device).train()  # type: ignore[arg-type]  # transformers' wrapper of `to` hides its self
    model.model.vision_tower.requires_grad_(False)
    parts = [model.model.multi_modal_projector, model.model.language_model, model.lm_head]
    opts = optimizers(parts, lr=2e-3, matrix_lr=0.01)
    base = [g["lr"] for o in opts for g in o.param_groups]
    state_file = work / "language.pt"
    first = 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        first = state["step"]
        for part, saved in zip(parts, state["parts"], strict=True):
            part.load_state_dict(saved)
        for o, saved in zip(opts, state["opts"], strict=True):
            o.load_state_dict(saved)
    lessons = torch.utils.data.Subset(_Lessons(processor, batch, steps), range(first, steps))
    loader = torch.utils.data.DataLoader(lessons, batch_size=None, num_workers=1, prefetch_factor=8)
    started, loss_sum, tokens = time.time(), 0.0, 0
    for step, lesson in enumerate(loader, start=first):
        factor = schedule(step, steps)
        for group, lr in zip((g for o in opts for g in o.param_groups), base, strict=True):
            group["lr"] = lr * factor
        moved: Any = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in lesson.items()}
        with autocast:
            loss, count = packed_loss(model, moved)
        (loss / count).backward()
        nn.utils.clip_grad_norm_([p for part in parts for p in part.parameters()], 1.0)
        for o in opts:
            o.step()
            o.zero_grad(set_to_none=True)
        loss_sum, tokens = loss_sum + loss.item(), tokens + count
        if (step + 1) % 50 == 0:
            rate = (step + 1 - first) * batch / (time.time() - started)
            print(
                f"language {step + 1}/{steps} loss {loss_sum / tokens:.4f} {rate:.0f} pictures/s", flush=True
            )
            loss_sum, tokens = 0.0, 0
        if (step + 1) % 250 == 0 or step + 1 == steps:
            save_state(
                state_file,
                step + 1,
                parts=[p.state_dict() for p in parts],
                opts=[o.state_dict() for o in opts],
            )


def save_state(file: Path, step: int, **state: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".tmp")
    torch.save({"step": step, **state}, temporary)
    temporary.replace(file)

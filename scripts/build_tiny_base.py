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
from typing import Any

import numpy as np
import sentencepiece as spm
import torch
from generic_questions import WORDS, questions, repeat_exercise
from generic_scenes import CHANNELS, CONDITIONS, GRID, PATCH, SIZE, Scene, render
from tokenizers import AddedToken
from torch import nn
from transformers import (
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlamaTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaImageProcessorPil,
    LlavaProcessor,
    PreTrainedTokenizerBase,
)

from llava.conversation import default_conversation as llava_prompt
from llava.processing import RecordProcessor
from llava.records import IMAGE_PLACEHOLDER
from llava.train.packing import Sample, build_row, collate, group_by_picture, pack_rows, packed_loss

WIDTH = 160
VOCABULARY = 1024
CONTEXT = 2048
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's
TRAIN_SEED, HELD_OUT_SEED = 1, 2
CLOSE_FROM = 2500  # vision step from which rows seen from near prevail: easy things first
LESSON_STREAM = 10_000_000  # scenes of the language stage come after those of the vision stage


def build_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Train the SentencePiece model, write it and its exact twin for `tokenizers` into `folder`.

    Llama's settings: BPE, byte fallback, split digits, no normalisation, a space before the text.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    scenes = (render(TRAIN_SEED, i) for i in range(1500))
    lines = [f"{question} {answer}" for scene in scenes for _, question, answer in questions(scene, rng)]
    lines += [f"{word} {word.capitalize()}" for word in WORDS] * 12
    lines += [llava_prompt.text([("human", "<image>"), ("gpt", "")]).split("</s>")[0].replace("<image>", "")] * 300
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=VOCABULARY,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        character_coverage=1.0,
        num_threads=1,
        minloglevel=2,
    )
    (folder / "tokenizer.vocab").unlink()
    pieces = spm.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    vocabulary = {pieces.id_to_piece(i): i for i in range(len(pieces))}
    # A merge for every way to split a piece into two known ones, the earliest-learned piece first.
    merges = [
        (piece[:cut], piece[cut:])
        for piece in sorted(vocabulary, key=lambda p: -pieces.get_score(vocabulary[p]))
        for cut in range(1, len(piece))
        if not pieces.is_byte(vocabulary[piece]) and piece[:cut] in vocabulary and piece[cut:] in vocabulary
    ]
    tokenizer = LlamaTokenizer(vocab=vocabulary, merges=merges, legacy=True, add_bos_token=True)
    tokenizer.add_tokens([AddedToken(IMAGE_PLACEHOLDER, special=True, normalized=False)])
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.chat_template = llava_prompt.jinja()
    tokenizer.model_max_length = CONTEXT
    for text in [*lines[:500], "Hållo wörld 한국어 изолятор 3,14 \n  two  spaces", "a\tb"]:
        if tokenizer.encode(text, add_special_tokens=False) != pieces.encode(text):
            raise RuntimeError(f"tokenizer.json and tokenizer.model disagree on {text!r}")
    return tokenizer


def new_model() -> LlavaForConditionalGeneration:
    """The model with random weights. `<image>` and `<pad>` follow the VOCABULARY SentencePiece pieces."""
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
        vocab_size=math.ceil((VOCABULARY + 2) / 64) * 64,
        hidden_size=WIDTH,
        intermediate_size=448,
        num_hidden_layers=4,
        num_attention_heads=5,
        num_key_value_heads=5,
        max_position_embeddings=CONTEXT,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=VOCABULARY + 1,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=VOCABULARY,
        image_seq_length=GRID * GRID,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        pad_token_id=VOCABULARY + 1,
    )
    torch.manual_seed(0)
    return LlavaForConditionalGeneration(config)


def device_and_autocast() -> tuple[torch.device, torch.autocast]:
    """A GPU if there is one; bf16 only where the processor has it natively (else it is many times slower)."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    native = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return device, torch.autocast(device.type, torch.bfloat16, enabled=native)


class _Scenes(torch.utils.data.Dataset):
    """Chunk `i` is scenes i * size ... of `seed`: pictures (size, 144, 144, 3) uint8 and dense labels. From
    chunk `close_from` on, three scenes of four are `close` ones."""

    def __init__(self, seed: int, size: int, chunks: int, close_from: int) -> None:
        self.seed, self.size, self.chunks, self.close_from = seed, size, chunks, close_from

    def __len__(self) -> int:
        return self.chunks

    def __getitem__(self, chunk: int) -> tuple[np.ndarray, np.ndarray, list[Scene]]:
        close = chunk >= self.close_from
        scenes = [render(self.seed, chunk * self.size + i, close=close and i % 4 > 0) for i in range(self.size)]
        return np.stack([np.asarray(s.image) for s in scenes]), np.stack([s.labels for s in scenes]), scenes


def scene_chunks(
    seed: int, size: int, first: int, last: int, workers: int, close_from: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray, list[Scene]]]:
    dataset = torch.utils.data.Subset(_Scenes(seed, size, last, close_from), range(first, last))
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


def schedule(step: int, steps: int, warmup: int = 100, decay: float = 0.3) -> float:
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
    conditions = [CHANNELS.index(c) for c in CONDITIONS]
    pool: list[tuple[np.ndarray, np.ndarray]] = []
    fresh = batch // 2
    started, running = time.time(), 0.0
    for step, (pictures, labels, _) in enumerate(scene_chunks(TRAIN_SEED, fresh, first, steps, 1, CLOSE_FROM), start=first):
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
        weight[conditions] = 4.0 if step < CLOSE_FROM else 12.0
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


class _Lessons(torch.utils.data.Dataset):
    """Batch `i` of the language stage: `pictures` scenes with their questions packed behind them, and a
    text-only exercise for every two, collated as the trainer collates (`llava.train.packing`)."""

    def __init__(self, processor: RecordProcessor, pictures: int, batches: int) -> None:
        self.processor, self.pictures, self.batches = processor, pictures, batches

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, batch: int) -> dict[str, Any]:
        rng = np.random.default_rng((TRAIN_SEED, LESSON_STREAM, batch))
        samples: list[Sample] = []
        images = {}
        for i in range(self.pictures):
            scene = render(TRAIN_SEED, LESSON_STREAM + batch * self.pictures + i)
            key = f"scene {i}"
            images[key] = np.asarray(scene.image)
            for _, question, answer in questions(scene, rng)[:10]:
                samples.append(self._sample(f"{IMAGE_PLACEHOLDER}\n{question}", answer, (key,)))
        for _ in range(self.pictures // 2):
            _, question, answer = repeat_exercise(rng, WORDS)
            samples.append(self._sample(question, answer, ()))
        groups = group_by_picture(samples, self.processor.image_token_id, CONTEXT)
        rows = [build_row(row) for row in pack_rows(groups, CONTEXT, WIDTH)]
        return collate(
            rows,
            lambda key: to_pixels(images[key][None], torch.device("cpu"))[0],
            pad_token_id=self.processor.tokenizer.pad_token_id,
        )

    def _sample(self, question: str, answer: str, pictures: tuple[str, ...]) -> Sample:
        encoded = self.processor.encode([("human", question), ("gpt", answer)])
        return Sample.of(question, encoded.input_ids, encoded.labels, pictures)


def train_language(
    work: Path, model: LlavaForConditionalGeneration, processor: RecordProcessor, steps: int, batch: int
) -> None:
    """Projector and Llama learn the questions; the tower keeps what the vision stage taught it."""
    device, autocast = device_and_autocast()
    torch.manual_seed(2)
    model.to(device).train()
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
        lesson = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in lesson.items()}
        with autocast:
            loss, count = packed_loss(model, lesson)
        (loss / count).backward()
        nn.utils.clip_grad_norm_([p for part in parts for p in part.parameters()], 1.0)
        for o in opts:
            o.step()
            o.zero_grad(set_to_none=True)
        loss_sum, tokens = loss_sum + loss.item(), tokens + count
        if (step + 1) % 50 == 0:
            rate = (step + 1 - first) * batch / (time.time() - started)
            print(f"language {step + 1}/{steps} loss {loss_sum / tokens:.4f} {rate:.0f} pictures/s", flush=True)
            loss_sum, tokens = 0.0, 0
        if (step + 1) % 250 == 0 or step + 1 == steps:
            save_state(state_file, step + 1, parts=[p.state_dict() for p in parts], opts=[o.state_dict() for o in opts])


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


def save_model(model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write the whole model folder in fp16: weights, configs, tokenizer, image processor, chat template."""
    model = model.to("cpu", torch.float16)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=VOCABULARY + 1)
    model.save_pretrained(folder)
    square = {"height": SIZE, "width": SIZE}
    LlavaProcessor(
        LlavaImageProcessorPil(
            size={"shortest_edge": SIZE}, crop_size=square, do_pad=True, image_mean=list(MEAN), image_std=list(STD)
        ),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        chat_template=tokenizer.chat_template,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)


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
    parser.add_argument("--vision-steps", type=int, default=5000)
    args = parser.parse_args()
    model = new_model()
    train_vision(args.work, model, args.vision_steps, 64)


if __name__ == "__main__":
    main()

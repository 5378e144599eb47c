"""On a GPU as on a CPU: packing changes no loss and no gradient, and a batch changes no answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from llava.inference.engine import Engine, Request
from llava.inference.live import LiveEngine
from llava.inference.sampling import SamplingOptions
from llava.processing.vision import Pixels
from llava.train.data.packing import FLEX, build_row, collate, group_by_image, packed_loss
from tests.llava.train.test_packing import IMAGE, IMAGE_TOKENS, IMAGES, mixed_records, pixels
from tests.support.small_model import image, random_model

pytestmark = pytest.mark.gpu
DEVICE = "cuda"
QUESTIONS = ["Is there a red circle?", "How many?", "What is on the left, and which colour has it?"]


@pytest.fixture(autouse=True)
def gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


def small_llava(dtype: torch.dtype, attention: str) -> LlavaForConditionalGeneration:
    """Make a random LLaVA for 12 x 12 pixels, with heads as wide as flex attention needs."""
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=12,
            patch_size=4, projection_dim=32,
        ).to_dict(),
        text_config=LlamaConfig(
            vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=256,
        ).to_dict(),
        image_token_index=IMAGE, image_seq_length=IMAGE_TOKENS,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    model.set_attn_implementation({"text_config": attention, "vision_config": "sdpa"})
    return model.to(DEVICE, dtype)


def loss_and_gradient(
    dtype: torch.dtype, attention: str = "sdpa", *, packing: bool
) -> tuple[float, torch.Tensor]:
    """Return the loss of the records and its gradient for all parameters, one after the other."""
    model = small_llava(dtype, attention)
    groups = group_by_image(mixed_records(), IMAGE, 500, packing=packing)
    rows = [build_row(groups)] if packing else [build_row([group]) for group in groups]

    def shown(key: str) -> Pixels:
        made = pixels(key)
        return replace(made, patches=made.patches.to(dtype))

    batch = collate(rows, shown, IMAGES, pad_token_id=0, attention=attention)
    batch = {k: v.to(DEVICE) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    total, _ = packed_loss(model, batch)
    total.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return total.item(), torch.cat([gradient.double().flatten() for gradient in gradients])


@pytest.mark.parametrize(
    ("dtype", "attention", "tolerance"),
    [
        (torch.float32, "sdpa", 1e-4),
        (torch.float32, FLEX, 1e-3),  # its kernels may round operands to tf32
        (torch.bfloat16, "sdpa", 0.05),
        (torch.bfloat16, FLEX, 0.05),
    ],
)
def test_packing_changes_no_loss_and_no_gradient(
    dtype: torch.dtype, attention: str, tolerance: float
) -> None:
    expected, gradient = loss_and_gradient(torch.float32, packing=False)
    found, found_gradient = loss_and_gradient(dtype, attention, packing=True)
    assert found == pytest.approx(expected, rel=tolerance)
    assert float((found_gradient - gradient).norm() / gradient.norm()) < tolerance


def test_batched_and_live_answers_equal_those_given_alone(tiny_model_dir: Path) -> None:
    loaded = random_model(tiny_model_dir)
    loaded.model.to(DEVICE)
    images = [image(seed) for seed in range(4)]
    requests = [Request(f"{i}-{q}", q, [shown]) for i, shown in enumerate(images) for q in QUESTIONS]
    requests.append(Request("both", "Which is brighter?", images[:2]))
    requests += [Request("choices", QUESTIONS[0], [images[3]], ["yes", "no"]), Request("text", "Why?")]
    Random(0).shuffle(requests)
    alone = [Engine(loaded).answer([request], max_new_tokens=16)[0] for request in requests]
    together = Engine(loaded).answer(requests, max_new_tokens=16)
    with LiveEngine(loaded) as live:
        handles = [live.submit(request, SamplingOptions(max_new_tokens=16)) for request in requests]
        streamed = ["".join(piece.text for piece in handle) for handle in handles]
        results = [handle.result(60) for handle in handles]
    assert len({result.text for result in alone}) > len(alone) // 2
    assert [result.text for result in together] == [result.text for result in alone]
    assert [result.text for result in results] == [result.text for result in alone]
    assert [text.strip() for text in streamed] == [result.text for result in alone]
    for found in (together, results):
        for one, other in zip(found, alone, strict=True):
            assert (one.choices or {}) == pytest.approx(other.choices or {}, abs=1e-3)

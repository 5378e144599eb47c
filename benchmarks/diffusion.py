"""How fast defects are painted by diffusion, and in how much memory: shapes of SDXL and SD 1.5.

    python -m benchmarks.diffusion --shape sdxl --steps 30 --batches 1 2 4 --output diffusion.json
    python -m benchmarks.diffusion --shape tiny --steps 2

The weights are random, in the real shapes: time and memory do not depend on what they are, what is painted
does. Every picture has its own prompt, mask and seed, on a photo of 12 megapixels. float16 on a GPU, with the
VAE in float32; float32 on a CPU. One batch warms up and is not counted. Exit code 1 if a pixel outside a mask
has changed.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from llava.common.files import write_json
from llava.painting.diffusion import BlendedDiffusion, DiffusionSettings, Wish
from llava.painting.diffusion_model import DiffusionModel

PHOTO = 4000, 3000
VOCABULARY = 49408
NOISING = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


@dataclass(frozen=True)
class Shape:
    """The sizes of a model's parts; `encoders` are (width, layers, heads) of its text encoders."""

    side: int
    unet: dict[str, Any]
    vae: tuple[int, ...]
    encoders: tuple[tuple[int, int, int], ...]


CLIP_L, CLIP_BIG_G = (768, 12, 12), (1280, 32, 20)
SHAPES = {
    "sdxl": Shape(
        side=1024,
        unet={
            "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2, 10),
            "attention_head_dim": (5, 10, 20),  # as diffusers calls the number of heads
            "cross_attention_dim": 2048,
            "use_linear_projection": True,
        },
        vae=(128, 256, 512, 512),
        encoders=(CLIP_L, CLIP_BIG_G),
    ),
    "sd15": Shape(
        side=512,
        unet={
            "block_out_channels": (320, 640, 1280, 1280),
            "attention_head_dim": 8,
            "cross_attention_dim": 768,
        },
        vae=(128, 256, 512, 512),
        encoders=(CLIP_L,),
    ),
    "tiny": Shape(
        side=64,
        unet={
            "block_out_channels": (32, 64),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "layers_per_block": 1,
            "cross_attention_dim": 64,
        },
        vae=(32, 32),
        encoders=((32, 2, 2), (32, 2, 2)),
    ),
}


@dataclass(frozen=True)
class Row:
    """A batch: seconds a picture, in all and of its parts, pictures a minute, and the most memory in GB.

    `before` are prompt, photo and VAE's encoder, `after` its decoder and laying in.
    """

    batch: int
    seconds: float
    before: float
    steps: float
    after: float
    pictures_per_minute: float
    memory_gb: float


def make_model(shape: Shape, device: str, dtype: torch.dtype) -> DiffusionModel:
    """Return a model of a shape with random weights."""
    import diffusers

    tokenizer = letters()
    parts: dict[str, Any] = {"scheduler": diffusers.EulerDiscreteScheduler(**NOISING)}
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    with torch.device(device):
        for number, (width, layers, heads) in enumerate(shape.encoders):
            config = CLIPTextConfig(
                vocab_size=VOCABULARY, hidden_size=width, intermediate_size=4 * width,
                num_hidden_layers=layers, num_attention_heads=heads, projection_dim=width,
                eos_token_id=tokenizer.eos_token_id,
            )  # fmt: skip
            ending = f"_{number + 1}" if number else ""
            parts[f"tokenizer{ending}"] = tokenizer
            encoder = CLIPTextModelWithProjection if number else CLIPTextModel
            parts[f"text_encoder{ending}"] = encoder(config).eval()
        levels = len(shape.vae)
        of_xl = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 6 * 256 + shape.encoders[-1][0],
        }
        parts["unet"] = diffusers.UNet2DConditionModel(
            sample_size=shape.side // 2 ** (levels - 1),
            **shape.unet,
            **(of_xl if len(shape.encoders) == 2 else {}),
        ).eval()
        torch.set_default_dtype(torch.float32)
        parts["vae"] = diffusers.AutoencoderKL(
            block_out_channels=shape.vae,
            layers_per_block=2,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
        ).eval()
    if len(shape.encoders) == 2:
        return DiffusionModel(diffusers.StableDiffusionXLPipeline(**parts, add_watermarker=False), "random")
    unchecked = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return DiffusionModel(diffusers.StableDiffusionPipeline(**parts, **unchecked), "random")


def letters() -> CLIPTokenizer:
    """Return a tokenizer of letters: the encoders always read 77 tokens, whichever they are."""
    pieces = [chr(code) + end for code in range(33, 127) for end in ("", "</w>")]
    vocabulary = {piece: number for number, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocabulary, [], model_max_length=77)


def make_wishes(count: int) -> list[Wish]:
    """Return pictures to paint: a mask of a 20th of the photo's width each, elsewhere on noise."""
    random = np.random.default_rng(0)
    width, height = PHOTO
    pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    wishes = []
    for seed in range(count):
        mask = np.zeros((height, width), bool)
        x, y = random.integers(width // 3, width // 2), random.integers(height // 3, height // 2)
        mask[y : y + width // 20, x : x + width // 20] = True
        wishes.append(Wish(pixels, mask, f"a photo of burn number {seed}", seed))
    return wishes


def measure(painter: BlendedDiffusion, batch: int, repeats: int) -> tuple[Row, bool]:
    """Paint `repeats` batches; the row, and whether nothing outside the masks has changed."""
    cuda = painter.model.device.type == "cuda"
    wishes = make_wishes(batch)
    painter.paint(wishes)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    before = steps = after = 0.0
    kept = True
    for _ in range(repeats):
        times = [now(cuda)]
        results = painter.paint(wishes, lambda seen: times.append(now(cuda)))  # noqa: B023  # called here
        times.append(now(cuda))
        step = (times[-2] - times[1]) / (len(times) - 3)  # the first begins where nobody watches
        before += times[1] - times[0] - step
        steps += times[-2] - times[1] + step
        after += times[-1] - times[-2]
        for wish, result in zip(wishes, results, strict=True):
            kept &= np.array_equal(result[~wish.mask], wish.pixels[~wish.mask])
    each = [seconds / (repeats * batch) for seconds in (before, steps, after)]
    # of a CPU the process's most so far: batches are measured from small to large
    peak = (
        torch.cuda.max_memory_allocated()
        if cuda
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    return Row(batch, sum(each), *each, pictures_per_minute=60 / sum(each), memory_gb=peak / 1e9), kept


def now(cuda: bool) -> float:
    """Return the time in seconds when all that was begun is done."""
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="sdxl")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args(argv)
    if args.steps < 2:
        parser.error("--steps must be 2 at least: a step's time is that from one to the next")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.float16 if device == "cuda" else torch.float32
    model = make_model(SHAPES[args.shape], device, dtype)
    painter = BlendedDiffusion(model, DiffusionSettings(steps=args.steps))
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(
        f"{args.shape}, {model.side} pixels, {args.steps} steps, {str(dtype).removeprefix('torch.')}, {name}"
    )
    print("batch  s/picture  before  steps  after  pictures/min  GB")
    rows, all_kept = [], True
    for batch in sorted(args.batches):
        row, kept = measure(painter, batch, args.repeats)
        all_kept &= kept
        rows.append(row)
        print(
            f"{row.batch:5}  {row.seconds:9.2f}  {row.before:6.2f}  {row.steps:5.2f}  {row.after:5.2f}  "
            f"{row.pictures_per_minute:12.1f}  {row.memory_gb:.1f}",
            flush=True,
        )
    if not all_kept:
        print("a pixel outside a mask has changed", file=sys.stderr)
    if args.output:
        settings = {"shape": args.shape, "steps": args.steps, "dtype": str(dtype), "device": name}
        write_json(args.output, {**settings, "kept": all_kept, "rows": [asdict(row) for row in rows]})
    return 0 if all_kept else 1


if __name__ == "__main__":
    sys.exit(main())

"""Loads Stable Diffusion 1, 2 or XL, as diffusers saves it, and asks its text encoders, VAE and UNet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.utils import logging

from llava.common.environment import how_to_install
from llava.common.errors import InputError, one_line
from llava.common.files import read_json
from llava.common.masks import Pixels
from llava.model.builder import choose_device
from llava.model.formats import UNUSABLE
from llava.model.hub import HubError, fetch_folder, is_hub_name

INDEX = "model_index.json"
SUPPORTED = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
_HALF = ".fp16."
"""Part of the names of weights that are stored in half precision beside the whole ones."""


@dataclass(frozen=True)
class PromptStates:
    """What the UNet reads of a prompt: `tokens` (1, tokens, width) and, of SDXL, `pooled` (1, width)."""

    tokens: Tensor
    pooled: Tensor | None


class DiffusionModel:
    """A diffusion model on its device. Latents and pictures are float32; the UNet computes in its own type.

    `side` is that of the square pictures that it was trained on and `cell` that of a latent, in pixels.
    """

    def __init__(self, pipeline: Any, name: str) -> None:
        """Take a pipeline's parts. `name` is for messages and facts."""
        unet, vae = pipeline.unet.config, pipeline.vae.config
        if unet.in_channels != vae.latent_channels:
            raise InputError(
                f"{name}: its UNet reads {unet.in_channels} channels, not the {vae.latent_channels} of a "
                "picture: take the model that it was made from, not the one for inpainting"
            )
        self.name = name
        self.cell = 2 ** (len(vae.block_out_channels) - 1)
        self.side = int(unet.sample_size) * self.cell
        self.scheduler = pipeline.scheduler
        self.is_xl = getattr(pipeline, "tokenizer_2", None) is not None
        self._pipeline = pipeline

    @property
    def device(self) -> torch.device:
        return self._pipeline.unet.device

    @property
    def tokenizers(self) -> list[Any]:
        """Those of its text encoders, one or two."""
        first, second = self._pipeline.tokenizer, getattr(self._pipeline, "tokenizer_2", None)
        return [first] if second is None else [first, second]

    @torch.inference_mode()
    def read_prompt(self, prompt: str, negative: str, guided: bool) -> list[PromptStates]:
        """Encode a prompt, and after it what it is guided away from if it is `guided`.

        Args:
            prompt: At most as long as the encoders read: what comes after is not read.
            negative: What the picture shall not be like; `""` for no wish.
            guided: Whether there is guidance at all.
        """
        wish = {"negative_prompt": negative or None, "do_classifier_free_guidance": guided}
        encoded = self._pipeline.encode_prompt(prompt, device=self.device, num_images_per_prompt=1, **wish)
        if not self.is_xl:
            encoded = (*encoded, None, None)
        states = [PromptStates(encoded[0], encoded[2]), PromptStates(encoded[1], encoded[3])]
        return states if guided else states[:1]

    @torch.inference_mode()
    def encode(self, pixels: Pixels) -> Tensor:
        """Return the latents (channels, rows, columns) of a picture whose sides are multiples of `cell`."""
        picture = torch.from_numpy(pixels.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)
        vae = self._pipeline.vae
        latents = vae.encode(picture[None].to(vae.device)).latent_dist.mode()
        return latents[0] * vae.config.scaling_factor

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Pixels:
        """Return the picture of latents (channels, rows, columns)."""
        vae = self._pipeline.vae
        picture = vae.decode(latents[None] / vae.config.scaling_factor).sample[0]
        if not picture.isfinite().all():
            raise InputError(f"{self.name}: it painted no numbers; try --dtype float32 or bfloat16")
        scaled = ((picture + 1) * 127.5).clamp(0, 255).round().byte()
        return scaled.permute(1, 2, 0).cpu().numpy()

    @torch.inference_mode()
    def predict(self, latents: Tensor, timestep: int, prompts: Sequence[PromptStates]) -> Tensor:
        """Ask the UNet.

        Args:
            latents: (pictures, channels, rows, columns).
            timestep: The level of noise, as it knows it.
            prompts: Of each picture.

        Returns:
            What it predicts (noise, as a rule), of the latents' shape.
        """
        unet = self._pipeline.unet
        more = None
        if self.is_xl:
            height, width = latents.shape[2] * self.cell, latents.shape[3] * self.cell
            # the size that the picture had, where it was cut and the size that it has: nothing was cut
            sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=unet.dtype)
            pooled = torch.cat([prompt.pooled for prompt in prompts if prompt.pooled is not None])
            more = {
                "text_embeds": pooled.to(unet.dtype),
                "time_ids": sizes.repeat(len(prompts), 1).to(unet.device),
            }
        tokens = torch.cat([prompt.tokens for prompt in prompts]).to(unet.dtype)
        predicted = unet(
            latents.to(unet.dtype), timestep, encoder_hidden_states=tokens, added_cond_kwargs=more
        ).sample
        return predicted.float()


def load_diffusion(
    model: str | Path, device: str | None = None, dtype: torch.dtype | None = None
) -> DiffusionModel:
    """Load a model.

    Args:
        model: A folder that diffusers saved, with weights in safetensors; or a Hub name, which is fetched.
        device: Defaults to CUDA where there is one.
        dtype: Of UNet and text encoders; defaults to float16 on CUDA and float32 on a CPU. The VAE is held
            in float32: that of SDXL gives no numbers in float16.

    Raises:
        InputError: diffusers is absent, or the folder is none that can be loaded.
    """
    try:
        import diffusers
    except ImportError:
        raise InputError(f"painting by diffusion needs diffusers: {how_to_install('synth')}") from None
    device = choose_device(device)
    dtype = dtype or (torch.float16 if device.startswith("cuda") else torch.float32)
    folder = _find_folder(model, half=dtype != torch.float32)
    kind = _pipeline_name(folder)
    diffusers.utils.logging.disable_progress_bar()
    logging.disable_progress_bar()  # transformers', of the text encoders
    # a checker of other things than defects, and what it reads pictures with
    absent = {"feature_extractor": None, "image_encoder": None}
    if kind == SUPPORTED[0]:
        absent |= {"safety_checker": None}
    try:
        pipeline = _pipeline_class(kind).from_pretrained(
            folder,
            dtype={"vae": torch.float32, "default": dtype},
            variant="fp16" if _is_half(folder) else None,
            use_safetensors=True,
            local_files_only=True,
            **absent,
        )
    except (*UNUSABLE, RuntimeError) as error:
        raise InputError(f"{folder}: the diffusion model cannot be loaded ({one_line(error)})") from None
    for part in PARTS:
        if (module := getattr(pipeline, part, None)) is not None:
            module.eval().requires_grad_(False).to(device)
    return DiffusionModel(pipeline, Path(model).name)


def _pipeline_class(kind: str) -> Any:
    """Import a pipeline's class, without transformers' warnings of what it reads pictures with: we do."""
    import diffusers

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        return getattr(diffusers, kind)
    finally:
        logging.set_verbosity(verbosity)


def _find_folder(model: str | Path, half: bool) -> Path:
    """Return the folder that is meant, fetched if it is a Hub name."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists() or not is_hub_name(str(model)) or folder.parent.is_dir():
        raise InputError(f"{folder}: no folder of a diffusion model, with {INDEX} in it")
    try:
        return fetch_folder(str(model), lambda names: wanted_files(names, half))
    except HubError as error:
        if not error.unreachable:
            raise
        raise InputError(
            f"{model} is no folder here, and the Hub cannot be reached from this machine; bring its folder "
            f"({INDEX} and {', '.join(PARTS)}, scheduler, tokenizer, tokenizer_2) from one that reaches it"
        ) from None


def wanted_files(names: Sequence[str], half: bool) -> list[str]:
    """Choose the files of a repository that are loaded: weights in safetensors, in half precision if that is
    what is computed in and there are such."""
    weights = [name for name in names if name.startswith(PARTS) and name.endswith(".safetensors")]
    whole = [name for name in weights if _HALF not in name]
    halves = [name for name in weights if _HALF in name]
    small = [
        name
        for name in names
        if name == INDEX
        or (
            "/" in name
            and name.startswith((*PARTS, "scheduler", "tokenizer"))
            and name.endswith((".json", ".txt"))
        )
    ]
    return sorted(small + (halves if (half and halves) or not whole else whole))


def _is_half(folder: Path) -> bool:
    """Tell whether a folder holds its UNet in half precision alone."""
    names = [path.name for path in (folder / "unet").glob("*.safetensors")]
    return bool(names) and all(_HALF in name for name in names)


def _pipeline_name(folder: Path) -> str:
    """Return the pipeline that a folder was saved by; InputError unless it is supported."""
    if not (folder / INDEX).is_file():
        raise InputError(
            f"{folder}: no {INDEX} in it; name a folder of Stable Diffusion 1, 2 or XL as diffusers saves it"
        )
    index = read_json(folder / INDEX)
    kind = index.get("_class_name") if isinstance(index, dict) else None
    if kind not in SUPPORTED:
        raise InputError(f"{folder / INDEX}: a {kind} is not supported, only {' and '.join(SUPPORTED)}")
    for part in PARTS:
        if (folder / part).is_dir() and not any((folder / part).glob("*.safetensors")):
            raise InputError(f"{folder / part}: no weights in .safetensors, and others are not loaded")
    return str(kind)

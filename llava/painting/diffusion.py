"""Repaints a masked part of a picture by a prompt: Blended Latent Diffusion (Avrahami et al., 2023).

At every step the latents of the masked cells are the prompt's, and all others the picture's own, noised to
that step. Of what is decoded at the end only pixels within the mask are taken, so that every other pixel is
the picture's, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llava.common.errors import InputError
from llava.common.masks import Mask, Pixels, blend_over, feather, half_width
from llava.painting.crops import Crop, crop_around, shrinking
from llava.painting.diffusion_model import DiffusionModel, PromptStates
from llava.painting.noise import NoiseStep, noise_steps, noised


@dataclass(frozen=True)
class DiffusionSettings:
    """How pictures are painted.

    `strength` is the share of the `steps` that is gone through: at 1 the mask begins as noise, below it as
    the picture with noise. `guidance` is how far the prompt is followed beyond `negative`, what a picture
    shall not be like; 1 is none. New pixels fade in over `feather` pixels of the photo, within the mask. A
    mask less than `least_cells` latents from middle to edge is wider in the first steps.
    """

    steps: int = 30
    strength: float = 1.0
    guidance: float = 7.5
    negative: str = ""
    feather: float = 4.0
    least_cells: int = 3


@dataclass(frozen=True)
class Wish:
    """A picture to paint: `pixels` (height, width, 3), of which the `mask` becomes what the prompt says.

    With `invert` all around the mask does, and what is in it is kept.
    """

    pixels: Pixels
    mask: Mask
    prompt: str
    seed: int
    invert: bool = False

    @property
    def painted(self) -> Mask:
        """Return where new pixels go."""
        return ~self.mask if self.invert else self.mask


@dataclass(frozen=True)
class StepSeen:
    """Latents after a step, to watch, of some pictures: all (pictures, channels, rows, columns).

    `picture` are the originals' without noise and `noise` is theirs. `cells` (pictures, 1, rows, columns) are
    those that are the prompt's.
    """

    step: NoiseStep
    latents: Tensor
    picture: Tensor
    noise: Tensor
    cells: Tensor


@dataclass(frozen=True)
class _Prepared:
    """A wish as the model sees it: `picture` and `noise` (channels, rows, columns), the `cells` painted after
    each step, and its prompt, followed by what it is guided away from."""

    crop: Crop
    picture: Tensor
    noise: Tensor
    cells: list[Tensor]
    prompts: list[PromptStates]


class BlendedDiffusion:
    """Paints with a model."""

    def __init__(self, model: DiffusionModel, settings: DiffusionSettings = DiffusionSettings()) -> None:
        """Check the settings; InputError for those that the model cannot be run with."""
        if settings.feather < 0 or settings.least_cells < 0:
            raise InputError("feather and least_cells must not be negative")
        if not 0 <= settings.guidance < float("inf"):
            raise InputError(f"guidance must be 0 or a number above, not {settings.guidance}")
        self.model = model
        self.settings = settings
        self._steps = noise_steps(model.scheduler, settings.steps, settings.strength)

    @property
    def details(self) -> dict[str, str | float]:
        """What the facts of a picture tell of how it was painted."""
        settings = self.settings
        told: dict[str, str | float] = {
            "model": self.model.name,
            "steps": settings.steps,
            "strength": settings.strength,
            "guidance": settings.guidance,
        }
        if settings.negative:
            told["negative"] = settings.negative
        return told

    @property
    def count(self) -> int:
        """How many steps a picture takes."""
        return len(self._steps)

    def paint(
        self, wishes: Sequence[Wish], watch: Callable[[StepSeen], None] = lambda seen: None
    ) -> list[Pixels]:
        """Paint pictures together.

        A picture's noise is of its seed alone; in a batch it may differ from what it is alone by what the
        order of a sum changes. Those that the model sees in different sizes are painted apart.

        Args:
            wishes: What to paint. A mask that leaves nothing to paint gives the picture as it is.
            watch: Called after each step.

        Returns:
            The pictures, of their own sizes.
        """
        prepared = [self._prepare(wish) if wish.painted.any() else None for wish in wishes]
        painted = [wish.pixels for wish in wishes]
        by_size: dict[tuple[int, int], list[int]] = {}
        for number, one in enumerate(prepared):
            if one is not None:
                by_size.setdefault(one.crop.seen, []).append(number)
        for numbers in by_size.values():
            batch = [one for number in numbers if (one := prepared[number]) is not None]
            for number, one, latents in zip(numbers, batch, self._denoise(batch, watch), strict=True):
                painted[number] = self._lay_in(wishes[number], one.crop, latents)
        return painted

    def _prepare(self, wish: Wish) -> _Prepared:
        model, settings = self.model, self.settings
        crop = crop_around(wish.painted, model.side)
        picture = model.encode(crop.cut(wish.pixels))
        # on the CPU: the same seed gives the same noise on every device
        generator = torch.Generator().manual_seed(wish.seed)
        noise = torch.randn(picture.shape, generator=generator).to(picture.device)
        cells = crop.cells(wish.painted, model.cell).to(picture.device)
        return _Prepared(
            crop=crop,
            picture=picture,
            noise=noise,
            cells=shrinking(cells, len(self._steps), settings.least_cells),
            prompts=model.read_prompt(wish.prompt, settings.negative, guided=settings.guidance > 1),
        )

    @torch.inference_mode()
    def _denoise(self, batch: Sequence[_Prepared], watch: Callable[[StepSeen], None]) -> Tensor:
        """Return the latents (pictures, channels, rows, columns) without noise."""
        picture = torch.stack([one.picture for one in batch])
        noise = torch.stack([one.noise for one in batch])
        latents = noised(picture, noise, self._steps[0].level)
        if self.settings.strength == 1:
            latents = torch.where(_cells(batch, 0), noise, latents)
        for number, step in enumerate(self._steps):
            new = step.forward(latents, self._predict(latents, step.timestep, batch))
            cells = _cells(batch, number)
            latents = torch.where(cells, new, noised(picture, noise, step.next_level))
            watch(StepSeen(step, latents, picture, noise, cells))
        return latents

    def _predict(self, latents: Tensor, timestep: int, batch: Sequence[_Prepared]) -> Tensor:
        """Ask the model, with guidance if there is any (classifier-free: Ho and Salimans, 2022)."""
        asked = list(zip(*(one.prompts for one in batch), strict=True))
        states = [state for prompts in asked for state in prompts]
        predicted = self.model.predict(latents.repeat(len(asked), 1, 1, 1), timestep, states)
        if len(asked) == 1:
            return predicted
        wished, unwished = predicted.chunk(2)
        return unwished + self.settings.guidance * (wished - unwished)

    def _lay_in(self, wish: Wish, crop: Crop, latents: Tensor) -> Pixels:
        """Return the photo with what was painted within the mask."""
        mask = wish.painted[crop.window]  # all of it, and around it what it is feathered from
        share = feather(mask, _feather_width(mask, self.settings.feather))
        result = wish.pixels.copy()
        result[crop.window] = blend_over(
            wish.pixels[crop.window], crop.fit(self.model.decode(latents)), share
        )
        return result


def _cells(batch: Sequence[_Prepared], step: int) -> Tensor:
    return torch.stack([one.cells[step] for one in batch])[:, None]


def _feather_width(mask: Mask, most: float) -> float:
    """Return over how many pixels a mask is feathered: in the middle of a thin one the new pixels shall be
    there whole."""
    return min(most, max(0.0, half_width(mask) / 2 - 0.5))

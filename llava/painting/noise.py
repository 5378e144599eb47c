"""The levels of noise that a diffusion model goes through, and the step from one to the next (DDIM).

A level is what is left of the picture's variance: latents at level `a` are sqrt(a) picture + sqrt(1 - a)
noise (the `alphas_cumprod` of Ho et al., 2020). Whatever sampler a folder names, the steps are those of DDIM
(Song et al., 2021) without added noise: each level is known exactly, so that a picture can be noised to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from llava.common.errors import InputError

_OTHER_NOISE = ("EDM", "FlowMatch")  # begin the names of schedulers that noise in another way


@dataclass(frozen=True)
class NoiseStep:
    """A step from `level` to `next_level`, the last of which is 1: no noise at all.

    `timestep` is what the model is told. `predicts` says what the model gives: the noise (`epsilon`), the
    picture (`sample`) or their mixture (`v_prediction`; Salimans and Ho, 2022).
    """

    timestep: int
    level: float
    next_level: float
    predicts: str

    def forward(self, latents: Tensor, prediction: Tensor) -> Tensor:
        """Return the latents at `next_level`, from those at `level` and what the model predicts of them."""
        kept, lost = self.level**0.5, (1 - self.level) ** 0.5
        if self.predicts == "epsilon":
            picture, noise = (latents - lost * prediction) / kept, prediction
        elif self.predicts == "sample":
            picture, noise = prediction, (latents - kept * prediction) / lost
        else:
            picture, noise = kept * latents - lost * prediction, kept * prediction + lost * latents
        return noised(picture, noise, self.next_level)


def noised(picture: Tensor, noise: Tensor, level: float) -> Tensor:
    """Return latents with noise up to a level; at level 1 they are the picture's, bit for bit."""
    return picture if level == 1 else level**0.5 * picture + (1 - level) ** 0.5 * noise


def noise_steps(scheduler: Any, steps: int, strength: float = 1.0) -> list[NoiseStep]:
    """Return the steps from noise to a picture.

    Args:
        scheduler: The pipeline's, of any sampler: how it noises is read from it.
        steps: How many there are from noise alone.
        strength: Of these, the share that is gone through, the last ones: above 0, up to 1.

    Raises:
        InputError: The scheduler noises in another way, or has fewer levels than `steps`.
    """
    from diffusers import DDIMScheduler

    name = type(scheduler).__name__
    if name.startswith(_OTHER_NOISE):
        raise InputError(f"models with {name} are not supported, only those that noise as SD 1, 2 and XL do")
    known = DDIMScheduler.from_config(scheduler.config, clip_sample=False, thresholding=False)
    most = int(known.config.num_train_timesteps)
    if not 1 <= steps <= most:
        raise InputError(f"steps must be 1 to {most}, as many levels as the model knows, not {steps}")
    if not 0 < strength <= 1:
        raise InputError(f"strength must be above 0 and at most 1, not {strength}")
    known.set_timesteps(steps)
    timesteps = [int(timestep) for timestep in known.timesteps]
    levels = [float(known.alphas_cumprod[timestep]) for timestep in timesteps] + [1.0]
    predicts = str(known.config.prediction_type)
    if predicts == "epsilon" and not levels[0]:
        raise InputError("the scheduler begins without any picture: such a model cannot predict the noise")
    through = [
        NoiseStep(timestep, level, following, predicts)
        for timestep, level, following in zip(timesteps, levels[:-1], levels[1:], strict=True)
    ]
    return through[-max(1, round(steps * strength)) :]

"""The steps from noise to a picture are those of diffusers' DDIM."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from llava.common.errors import InputError
from llava.painting.noise import noise_steps, noised

diffusers = pytest.importorskip("diffusers")
NOISING = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("sampler", ["DDIMScheduler", "PNDMScheduler", "EulerDiscreteScheduler"])
def test_steps_are_those_of_ddim(sampler: str, predicts: str) -> None:
    """Whatever sampler the folder names."""
    options: dict[str, Any] = {**NOISING, "steps_offset": 1, "prediction_type": predicts}
    ours = noise_steps(getattr(diffusers, sampler)(**options), 10)
    theirs = diffusers.DDIMScheduler(**options, clip_sample=False)
    theirs.set_timesteps(10)
    assert [step.timestep for step in ours] == theirs.timesteps.tolist()
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 8, 8, generator=generator)
    for step in ours:
        prediction = torch.randn(latents.shape, generator=generator)
        expected = theirs.step(prediction, step.timestep, latents).prev_sample
        latents = step.forward(latents, prediction)
        torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction", "sample"])
def test_a_perfect_prediction_ends_at_the_picture(predicts: str) -> None:
    """Each step lands where the picture, noised to its level, is."""
    picture, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).unbind()
    steps = noise_steps(diffusers.DDIMScheduler(**NOISING, prediction_type=predicts), 20, strength=0.5)
    assert len(steps) == 10
    latents = noised(picture, noise, steps[0].level)
    for step in steps:
        mixture = step.level**0.5 * noise - (1 - step.level) ** 0.5 * picture
        prediction = {"epsilon": noise, "sample": picture, "v_prediction": mixture}[predicts]
        latents = step.forward(latents, prediction)
        torch.testing.assert_close(latents, noised(picture, noise, step.next_level), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(latents, picture, rtol=1e-4, atol=1e-4)


def test_a_level_without_noise_is_the_picture_itself() -> None:
    picture = torch.randn(3)
    assert noised(picture, torch.full((3,), torch.inf), 1.0) is picture


def test_models_that_noise_in_another_way_are_refused() -> None:
    with pytest.raises(InputError, match="FlowMatchEulerDiscreteScheduler are not supported"):
        noise_steps(diffusers.FlowMatchEulerDiscreteScheduler(), 10)
    dark = diffusers.DDIMScheduler(**NOISING, rescale_betas_zero_snr=True, timestep_spacing="trailing")
    with pytest.raises(InputError, match="cannot predict the noise"):
        noise_steps(dark, 10)

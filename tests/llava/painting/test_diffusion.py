"""Blended diffusion: the picture's own latents and pixels stay outside the mask, seeds and batches hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llava.common.errors import InputError
from llava.common.masks import Mask, Pixels
from llava.painting.diffusion import BlendedDiffusion, DiffusionSettings, StepSeen, Wish
from llava.painting.diffusion_model import DiffusionModel

FAST = DiffusionSettings(steps=4)


def photo(height: int = 90, width: int = 130, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def square(height: int = 90, width: int = 130) -> Mask:
    mask = np.zeros((height, width), bool)
    mask[30:50, 60:75] = True
    return mask


WISH = Wish(photo(), square(), "a burn on white porcelain", seed=3)


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_latents_outside_the_mask_are_the_pictures_noised_to_every_step(
    model: DiffusionModel, strength: float
) -> None:
    """Computed anew from what the photo, the seed and diffusers' own scheduler give."""
    from diffusers import DDIMScheduler

    options = replace(FAST, steps=8, strength=strength)
    seen: list[StepSeen] = []
    BlendedDiffusion(model, options).paint([WISH], seen.append)
    assert len(seen) == 8 * strength
    noise = torch.randn(seen[0].picture[0].shape, generator=torch.Generator().manual_seed(WISH.seed))
    reference = DDIMScheduler.from_config(model.scheduler.config)
    reference.set_timesteps(8)
    following = [*reference.timesteps[-len(seen) :][1:], None]
    for after, timestep in zip(seen, following, strict=True):
        expected = after.picture
        if timestep is not None:  # there is no noise after the last step
            expected = reference.add_noise(after.picture, noise[None], timestep[None])
        outside = ~after.cells.expand_as(after.latents)
        assert outside.any() and after.cells.any()
        torch.testing.assert_close(after.latents[outside], expected[outside])
        assert (after.latents[~outside] != expected[~outside]).any()
    assert torch.equal(seen[-1].noise[0], noise)
    assert torch.equal(seen[-1].latents[outside], seen[-1].picture[outside])


def test_latents_are_those_of_the_photo(model: DiffusionModel) -> None:
    """A photo of the model's own size is seen as it is."""
    pixels, mask = photo(64, 64), np.zeros((64, 64), bool)
    mask[20:44, 20:44] = True
    seen: list[StepSeen] = []
    BlendedDiffusion(model, FAST).paint([Wish(pixels, mask, "rust", 0)], seen.append)
    assert torch.equal(seen[-1].picture[0], model.encode(pixels))
    inner = seen[-1].cells[0, 0]
    assert torch.equal(inner, torch.from_numpy(mask[::2, ::2]))


@st.composite
def masks(draw: st.DrawFn) -> Mask:
    """Draw masks of rectangles, of photos from a few pixels up."""
    height, width = draw(st.integers(1, 150)), draw(st.integers(1, 150))
    mask = np.zeros((height, width), bool)
    for _ in range(draw(st.integers(0, 3))):
        y, x = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        mask[y : y + draw(st.integers(1, height)), x : x + draw(st.integers(1, width))] = True
    return mask


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mask=masks(), invert=st.booleans(), width=st.sampled_from([0.0, 4.0, 50.0]))
def test_pixels_outside_the_mask_stay_bit_for_bit(
    sd: DiffusionModel, mask: Mask, invert: bool, width: float
) -> None:
    pixels = photo(*mask.shape)
    painter = BlendedDiffusion(sd, replace(FAST, steps=2, feather=width))
    result = painter.paint([Wish(pixels, mask, "a crack", 1, invert=invert)])[0]
    kept = mask if invert else ~mask
    assert result.shape == pixels.shape and result.dtype == np.uint8
    assert np.array_equal(result[kept], pixels[kept])
    assert kept.all() or not np.array_equal(result, pixels)


def test_a_batch_gives_what_each_gives_alone(model: DiffusionModel) -> None:
    """Photos that the model sees in different sizes, too, and one with nothing to paint."""
    wishes = [
        WISH,
        replace(WISH, seed=4, prompt="rust"),
        Wish(photo(40, 200), square()[:40].repeat(2, axis=1)[:, :200], "moss", 5, invert=True),
        replace(WISH, mask=np.zeros_like(WISH.mask)),
    ]
    painter = BlendedDiffusion(model, FAST)
    together = painter.paint(wishes)
    for wish, result in zip(wishes, together, strict=True):
        alone = painter.paint([wish])[0]
        assert np.abs(alone.astype(int) - result).max() <= 1  # a sum's order may turn a rounding
    assert np.array_equal(together[3], WISH.pixels)
    assert not np.array_equal(together[0], together[1])


def test_the_seed_and_the_prompt_make_the_picture(model: DiffusionModel) -> None:
    painter = BlendedDiffusion(model, FAST)
    first = painter.paint([WISH])[0]
    assert np.array_equal(first, painter.paint([WISH])[0])
    assert not np.array_equal(first, painter.paint([replace(WISH, seed=4)])[0])
    assert not np.array_equal(first, painter.paint([replace(WISH, prompt="a nest of twigs")])[0])
    for other in ({"guidance": 1.0}, {"guidance": 3.0}, {"negative": "blue sky"}, {"strength": 0.5}):
        changed = BlendedDiffusion(model, replace(FAST, **other)).paint([WISH])[0]
        assert not np.array_equal(first, changed), other


def test_without_guidance_the_model_is_asked_once_a_step(
    sd: DiffusionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    predict = sd.predict
    monkeypatch.setattr(
        sd, "predict", lambda latents, *rest: asked.append(len(latents)) or predict(latents, *rest)
    )
    BlendedDiffusion(sd, replace(FAST, guidance=1.0)).paint([WISH])
    BlendedDiffusion(sd, FAST).paint([WISH, WISH])
    assert asked == [1] * 4 + [4] * 4


def test_less_strength_keeps_more_of_the_photo(sd: DiffusionModel) -> None:
    """With a model that predicts the noise that is there, what is left is the photo's."""
    seen: list[StepSeen] = []
    BlendedDiffusion(sd, replace(FAST, steps=50, strength=0.02)).paint([WISH], seen.append)
    last = seen[-1]
    assert (last.latents - last.picture)[last.cells.expand_as(last.latents)].abs().mean() < 0.2


def test_a_line_is_painted_whole(sd: DiffusionModel) -> None:
    """A scratch of one pixel is feathered away by no feather, and is wider to the model at first."""
    pixels, mask = photo(256, 256), np.zeros((256, 256), bool)
    mask[128, 20:230] = True
    seen: list[StepSeen] = []
    result = BlendedDiffusion(sd, FAST).paint([Wish(pixels, mask, "a scratch", 0)], seen.append)[0]
    sizes = [int(one.cells.sum()) for one in seen]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > 2 * sizes[-1] > 0
    assert (result != pixels).any(axis=2)[mask].mean() > 0.95


def test_a_photo_is_seen_where_its_mask_is(sd: DiffusionModel) -> None:
    """What is far away has no say in what is painted."""
    pixels, mask = photo(700, 900), np.zeros((700, 900), bool)
    mask[500:530, 100:140] = True
    other = pixels.copy()
    other[:300] = 0
    painter = BlendedDiffusion(sd, FAST)
    first, second = painter.paint([Wish(pixels, mask, "rust", 0), Wish(other, mask, "rust", 0)])
    assert np.array_equal(first[mask], second[mask])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "steps must be 1 to 1000"),
        ({"steps": 1001}, "steps must be 1 to 1000"),
        ({"strength": 0.0}, "strength must be above 0"),
        ({"strength": 1.5}, "strength must be above 0"),
        ({"feather": -1.0}, "must not be negative"),
    ],
)
def test_settings_that_cannot_be_are_refused(sd: DiffusionModel, options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        BlendedDiffusion(sd, replace(FAST, **options))

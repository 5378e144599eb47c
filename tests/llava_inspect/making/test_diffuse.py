"""Painting jobs by diffusion, with a tiny model: what it gives is what the filter and the writer expect."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.annotations import Shape
from data_prep.synthesis.painted import Job, Painted, Photo, Rejected
from llava.common.files import sha256
from llava.painting.diffusion import BlendedDiffusion, DiffusionSettings
from llava.painting.diffusion_model import load_diffusion
from llava_inspect.making.diffuse import DiffusePainter
from llava_inspect.making.regions import NO_PLACE, DefectRegions
from tests.support.tiny_diffusers import save_tiny_diffusion

STRING = Shape("string", (20.0, 30.0, 180.0, 60.0))


@pytest.fixture
def photo(tmp_path: Path) -> Photo:
    pixels = np.random.default_rng(0).integers(0, 256, (100, 200, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return Photo(tmp_path / "a.png", "a.png", sha256(tmp_path / "a.png"), (200, 100), (STRING,), ())


def test_jobs_are_painted_where_their_mask_is(photo: Photo, tmp_path: Path) -> None:
    model = load_diffusion(save_tiny_diffusion(tmp_path / "tiny-sd"), device="cpu")
    burnt = replace(photo, defects=(Shape("burn", (0.0, 0.0, 200.0, 100.0)),))
    painter = DiffusePainter(
        BlendedDiffusion(model, DiffusionSettings(steps=2)),
        DefectRegions([replace(photo, defects=(Shape("burn", (30.0, 35.0, 50.0, 55.0)),))]),
        prompt=lambda job: f"a {job.kind} on a string",
        batch_size=3,
    )
    assert painter.can_make("burn") is None and painter.method == "diffuse"
    jobs = [
        Job(4, photo, "burn", STRING, 1),
        Job(5, burnt, "burn", STRING, 2),
        Job(6, photo, "nest", STRING, 3),
    ]
    first, none, last = painter.paint(jobs)
    assert none == Rejected(NO_PLACE)
    original = photo.pixels()
    for made, kind in ((first, "burn"), (last, "nest")):
        assert isinstance(made, Painted)
        assert np.array_equal(made.pixels[~made.mask], original[~made.mask])
        assert (made.pixels != original).any(axis=2)[made.mask].mean() > 0.9
        assert made.prompt == f"a {kind} on a string"
        assert made.details["model"] == "tiny-sd" and made.details["steps"] == 2
    alone = painter.paint(jobs[2:])[0]
    assert isinstance(alone, Painted) and isinstance(last, Painted)
    assert np.abs(alone.pixels.astype(int) - last.pixels).max() <= 1
    assert painter.paint(jobs[1:2]) == [Rejected(NO_PLACE)]

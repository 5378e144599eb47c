"""Make a novelty bank from pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from llava.common.errors import InputError
from llava.common.files import sha256
from llava.common.images import open_image
from llava.inference.model_runner import ImageWatch, ModelRunner
from llava.model.formats import last_vision_layer
from llava.novelty.bank import MAX_VECTORS, BankInfo, CalibrationPicture, NoveltyBank, tower_fingerprint
from llava.novelty.coreset import k_centre
from llava.novelty.patches import neighbourhood_means, split_images

BATCH = 8  # pictures that the tower reads at a time
MAX_CANDIDATES = 50_000
"""Patches that the coreset is chosen from: of each training picture as many, drawn at random."""
RIDGE = 0.01
"""Added to the variances when features are whitened, as a share of their mean: directions without any
variance would become noise."""
COMPONENTS = 8
"""Principal components of the pictures' mean features that the drift test compares."""


@dataclass(frozen=True)
class KnownPicture:
    """A picture to make the bank from; `group` and `sound` matter for calibration."""

    path: Path
    group: str
    sound: bool


@dataclass(frozen=True)
class BankSettings:
    """How a bank of at most `vectors` is made.

    Features are what goes into layer `layer` of the tower (None: the last that the language model reads), in
    means over `neighbourhood` x `neighbourhood` patches.
    """

    vectors: int = 2000
    layer: int | None = None
    neighbourhood: int = 1


def build_bank(
    runner: ModelRunner,
    model_id: str,
    training: Sequence[KnownPicture],
    calibration: Sequence[KnownPicture],
    settings: BankSettings = BankSettings(),
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> NoveltyBank:
    """Make a bank.

    Args:
        runner: The model's.
        model_id: Its name, for messages.
        training: What is known: its patches fill the bank.
        calibration: Other pictures, for p-values and the drift test.
        settings: How.
        progress: Called with a stage in words, and how much of it is done.

    Raises:
        InputError: A picture cannot be read, is on both sides, or a side is empty.
    """
    if not 1 <= settings.vectors <= MAX_VECTORS:
        raise InputError(f"a bank holds 1 to {MAX_VECTORS} vectors, not {settings.vectors}")
    if len(training) < 2 or not calibration:
        raise InputError("a novelty bank needs training pictures, and others to calibrate it with")
    training_hashes = [sha256(picture.path) for picture in training]
    calibration_hashes = [sha256(picture.path) for picture in calibration]
    trained_on = set(training_hashes)
    for picture, digest in zip(calibration, calibration_hashes, strict=True):
        if digest in trained_on:
            raise InputError(
                f"{picture.path} is a training picture too: calibration needs pictures that were not "
                "trained on"
            )
    layer = settings.layer
    if layer is None:
        layer = last_vision_layer(runner.model.config)
    paths = [picture.path for picture in training]
    candidates, means = _collect(runner, paths, layer, settings.neighbourhood, progress)
    mean, whitening = _whitening(candidates)
    candidates = (candidates - mean) @ whitening
    stage = "choosing what to keep"
    chosen = k_centre(
        candidates, settings.vectors, progress=lambda done: progress(stage, done, settings.vectors)
    )
    progress(stage, len(chosen), len(chosen))  # fewer where patches are alike
    picture_mean, components = _principal_components(means)
    bank = NoveltyBank(
        info=BankInfo(
            model_id=model_id,
            tower=tower_fingerprint(runner),
            dtype=str(runner.model.dtype),
            layer=layer,
            neighbourhood=settings.neighbourhood,
            training=training_hashes,
            calibration=[
                CalibrationPicture(group=picture.group, sound=picture.sound, sha256=digest)
                for picture, digest in zip(calibration, calibration_hashes, strict=True)
            ],
        ),
        vectors=candidates[chosen].half().float(),  # as they are in the file
        mean=mean,
        whitening=whitening,
        picture_mean=picture_mean,
        components=components,
        distances=np.zeros(0),
        projections=np.zeros((0, components.shape[1])),
    )
    return _calibrated(bank, runner, [picture.path for picture in calibration], progress)


def _collect(
    runner: ModelRunner,
    paths: Sequence[Path],
    layer: int,
    neighbourhood: int,
    progress: Callable[[str, int, int], None],
) -> tuple[Tensor, Tensor]:
    """Return features of patches of all pictures (at most MAX_CANDIDATES, width), and the mean feature of
    each picture (pictures, width)."""
    generator = torch.Generator().manual_seed(0)
    each = max(1, MAX_CANDIDATES // len(paths))
    candidates, means = [], []
    for patches in _read(runner, paths, layer):
        features = neighbourhood_means(patches, neighbourhood).flatten(0, 2)
        drawn = torch.randperm(len(features), generator=generator)[:each]
        candidates.append(features[drawn.to(features.device)])
        means.append(patches.mean(dim=(0, 1, 2)))
        progress("reading training pictures", len(means), len(paths))
    return torch.cat(candidates)[:MAX_CANDIDATES], torch.stack(means)


def _calibrated(
    bank: NoveltyBank,
    runner: ModelRunner,
    paths: Sequence[Path],
    progress: Callable[[str, int, int], None],
) -> NoveltyBank:
    """Return the bank with the distances and projections of the calibration pictures."""
    distances, projections = [], []
    for patches in _read(runner, paths, bank.info.layer):
        distances.append(float(bank.patch_distances(patches).max()))
        projections.append(bank.project(patches).tolist())
        progress("reading calibration pictures", len(distances), len(paths))
    return NoveltyBank(
        bank.info, bank.vectors, bank.mean, bank.whitening, bank.picture_mean, bank.components,
        np.array(distances, np.float64), np.array(projections, np.float64),
    )  # fmt: skip


def _read(runner: ModelRunner, paths: Sequence[Path], layer: int) -> Iterator[Tensor]:
    """Yield the patches of each picture, as `split_images` gives them."""
    found: list[Tensor] = []
    side, pixels = runner.processor.vision.patches_per_side, runner.processor.pixels
    runner.image_watch = ImageWatch(
        layer, lambda images, states: found.extend(split_images(images, states, side))
    )
    try:
        for start in range(0, len(paths), BATCH):
            runner.see([pixels(open_image(path)) for path in paths[start : start + BATCH]])
            yield from found
            found.clear()
    finally:
        runner.image_watch = None


def _whitening(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean (width,), and the matrix (width, width) after which all directions vary alike."""
    mean = features.mean(dim=0)
    variances, directions = torch.linalg.eigh(torch.cov(features.T).double())
    variances = variances.clamp_min(0)
    scale = (variances + RIDGE * variances.mean()).rsqrt()
    return mean, (directions * scale).float()


def _principal_components(means: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean (width,) and the first components (width, k), scaled to projections of variance 1."""
    mean = means.mean(dim=0)
    _, singular, directions = torch.linalg.svd((means - mean).double(), full_matrices=False)
    kept = min(COMPONENTS, int((singular > 1e-6 * singular[0]).sum()))
    deviations = singular[:kept] / (len(means) - 1) ** 0.5
    return mean, (directions[:kept].T / deviations).float()

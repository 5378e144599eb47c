"""Patch features: what the vision tower makes of each part of an image, read from the pass that answers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from llava.processing.vision import Pixels


def split_images(images: Sequence[Pixels], states: Tensor, side: int) -> list[Tensor]:
    """Return the patches' features of each image.

    Args:
        images: The images of one pass of the tower, in its order.
        states: (squares of all images, tokens, width), what goes into a layer of the tower.
        side: Patches along a square's side. What precedes them (CLIP's class token) is left out.

    Returns:
        float32 (squares, side, side, width) for each image: one square, or the whole image and its tiles.
    """
    patches = states[:, -side * side :].float().unflatten(1, (side, side))
    return list(patches.split([len(image.patches) for image in images]))


def neighbourhood_means(patches: Tensor, size: int) -> Tensor:
    """Return the mean over the `size` x `size` patches around each, inside its square; shapes as given.

    PatchCore's local aggregation (Roth et al. 2022, arXiv 2106.08265, section 3.1).
    """
    if size == 1:
        return patches
    planes = functional.avg_pool2d(
        patches.permute(0, 3, 1, 2), size, stride=1, padding=size // 2, count_include_pad=False
    )
    return planes.permute(0, 2, 3, 1)


def nearest_distances(vectors: Tensor, bank: Tensor) -> Tensor:
    """Return the Euclidean distance (n,) of each of `vectors` (n, width) to the nearest of `bank`."""
    if not len(vectors):
        return vectors.new_empty(0)
    squares = bank.square().sum(dim=1)
    nearest = [
        (squares - 2 * part @ bank.T).amin(dim=1) + part.square().sum(dim=1) for part in vectors.split(2048)
    ]
    return torch.cat(nearest).clamp_min(0).sqrt()

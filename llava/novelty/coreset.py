"""Choose few vectors that cover many: PatchCore's greedy k-centre coreset."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

PROJECTED_WIDTH = 64
"""Distances are measured after a random projection to so many numbers, which keeps them nearly as they are
(Johnson and Lindenstrauss 1984)."""


def k_centre(
    vectors: Tensor, count: int, seed: int = 0, progress: Callable[[int], None] | None = None
) -> Tensor:
    """Return the indices of at most `count` vectors, such that none is far from all of them.

    Each next one is the farthest from those chosen (Gonzalez 1985, at most twice as far as the best choice;
    Roth et al. 2022, arXiv 2106.08265, algorithm 1). Vectors equal to one chosen are left out.

    Args:
        vectors: (n, width) float32.
        count: The most to choose.
        seed: Of the projection and of the first choice.
        progress: Called with the number chosen so far.
    """
    generator = torch.Generator().manual_seed(seed)
    if vectors.shape[1] > PROJECTED_WIDTH:
        projection = torch.randn(vectors.shape[1], PROJECTED_WIDTH, generator=generator)
        vectors = vectors @ (projection / PROJECTED_WIDTH**0.5).to(vectors.device)
    squares = vectors.square().sum(dim=1)
    distances = torch.full_like(squares, float("inf"))
    tiny = 1e-6 * float(squares.max())
    chosen = [int(torch.randint(len(vectors), (1,), generator=generator))]
    while len(chosen) < count:
        latest = vectors[chosen[-1]]
        distances = torch.minimum(distances, squares + latest.square().sum() - 2 * (vectors @ latest))
        farthest = int(distances.argmax())
        if float(distances[farthest]) <= tiny:
            break
        chosen.append(farthest)
        if progress is not None and len(chosen) % 100 == 0:
            progress(len(chosen))
    return torch.tensor(chosen, device=vectors.device)

"""Paints defects by diffusion: places for them, prompts, and Stable Diffusion on the photos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock

from data_prep.synthesis.painted import Job, Painted, Rejected
from llava.common.masks import Mask
from llava.common.synthetic import Method
from llava.painting.diffusion import BlendedDiffusion, Wish


class DiffusePainter:
    """Paints what a prompt says into parts of photos."""

    method: Method = "diffuse"

    def __init__(
        self,
        diffusion: BlendedDiffusion,
        region: Callable[[Job], Mask | Rejected],
        prompt: Callable[[Job], str],
        batch_size: int = 1,
        invert: bool = False,
    ) -> None:
        """Take what paints.

        Args:
            diffusion: What paints.
            region: Says which part of its photo a job is about.
            prompt: Says what to paint for a job, cut to what the model reads; it is asked by one thread at a
                time.
            batch_size: Pictures that are painted together.
            invert: Keeps the region and paints all around it.
        """
        self.batch_size = batch_size
        self._invert = invert
        self._diffusion = diffusion
        self._region = region
        self._prompt = prompt
        self._alone = Lock()  # its model's tokenizers and its memory are for one batch at a time

    def can_make(self, kind: str) -> str | None:
        """Return None: what the words say can be painted."""
        return None

    def paint(self, jobs: Sequence[Job]) -> list[Painted | Rejected]:
        """Make the pictures of some jobs, in their order."""
        regions = [self._region(job) for job in jobs]
        with self._alone:
            wishes = {
                job.number: Wish(job.photo.pixels(), region, self._prompt(job), job.seed, self._invert)
                for job, region in zip(jobs, regions, strict=True)
                if not isinstance(region, Rejected)
            }
            pictures = self._diffusion.paint(list(wishes.values()))
        made = {
            number: Painted(
                pixels=pixels, mask=wish.painted, prompt=wish.prompt, details=self._diffusion.details
            )
            for (number, wish), pixels in zip(wishes.items(), pictures, strict=True)
        }
        return [
            region if isinstance(region, Rejected) else made[job.number]
            for job, region in zip(jobs, regions, strict=True)
        ]

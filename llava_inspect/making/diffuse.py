"""Paints defects by diffusion: places for them, prompts, and Stable Diffusion on the photos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

from data_prep.synthesis.painted import Job, Painted, Photo, Rejected
from data_prep.synthesis.places import Places
from data_prep.synthetic import Method
from llava.painting.diffusion import BlendedDiffusion, Wish

NO_PLACE = "no place that is clear of the photo's other defects"


class DiffusePainter:
    """Paints what a prompt says into a place of the size that defects of the kind have."""

    method: Method = "diffuse"

    def __init__(
        self,
        diffusion: BlendedDiffusion,
        photos: Sequence[Photo],
        prompt: Callable[[Job], str],
        batch_size: int = 1,
    ) -> None:
        """Look where the photos show defects.

        Args:
            diffusion: What paints.
            photos: Training photos, whose defects tell sizes and places.
            prompt: Says what to paint for a job, cut to what the model reads; it is asked by one thread at a
                time.
            batch_size: Pictures that are painted together.
        """
        self.batch_size = batch_size
        self._diffusion = diffusion
        self._places = Places(photos)
        self._prompt = prompt
        self._alone = Lock()  # its model's tokenizers and its memory are for one batch at a time

    def can_make(self, kind: str) -> str | None:
        """Return None: what the words say can be painted."""
        return None

    def paint(self, jobs: Sequence[Job]) -> list[Painted | Rejected]:
        """Make the pictures of some jobs, in their order."""
        places = [self._places.find(job) for job in jobs]
        with self._alone:
            wishes = {
                job.number: Wish(job.photo.pixels(), place, self._prompt(job), job.seed)
                for job, place in zip(jobs, places, strict=True)
                if place is not None
            }
            pictures = self._diffusion.paint(list(wishes.values()))
        settings = self._diffusion.settings
        details: dict[str, Any] = {
            "model": self._diffusion.model.name,
            "steps": settings.steps,
            "strength": settings.strength,
            "guidance": settings.guidance,
        }
        if settings.negative:
            details["negative"] = settings.negative
        made = {
            number: Painted(pixels=pixels, mask=wish.mask, prompt=wish.prompt, details=details)
            for (number, wish), pixels in zip(wishes.items(), pictures, strict=True)
        }
        return [made.get(job.number, Rejected(NO_PLACE)) for job in jobs]

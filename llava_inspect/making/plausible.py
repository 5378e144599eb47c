"""Asks a model about made pictures: whether it still sees the component, and how unlike training they are."""

from __future__ import annotations

import threading
from argparse import Namespace
from io import BytesIO
from pathlib import Path

from PIL import Image

from data_prep.images.units import encode_part
from data_prep.recipe.families import DefectKind
from data_prep.recipe.schema import Recipe
from data_prep.synthesis.filter import Made
from data_prep.synthesis.painted import Job
from llava.common.boxes import Box
from llava.common.errors import InputError
from llava.common.images import open_image
from llava.common.masks import Pixels
from llava.inference.engine import Engine, Request
from llava.model.builder import load_model
from llava.novelty.bank import read_bank
from llava.novelty.meter import NoveltyMeter

LOST = "the model no longer sees the component"
IMPLAUSIBLE = "unlike all training pictures"
_KEPT = 0.5  # of the probability that the component is there, which must be left
_CONTEXT = 0.3  # shown around a component, as a share of its longer side
_ASKED = "Is there {phrase}?"


class ModelJudge:
    """Judges made pictures with a model, one at a time. It may be called from several threads."""

    def __init__(self, args: Namespace, recipe: Recipe, bank: Path | None) -> None:
        """Load the model that the flags of `add_model_flags` name.

        Args:
            args: The flags.
            recipe: What the pictures are made for.
            bank: A novelty bank of that model; None does not compare with training pictures.

        Raises:
            InputError: The model or the bank cannot be used.
        """
        read = read_bank(bank) if bank else None  # fails before anything slow
        loaded = load_model(
            args.model_path, args.model_base, device=args.device, load_8bit=args.load_8bit,
            load_4bit=args.load_4bit, conv_mode=args.conv_mode,
        )  # fmt: skip
        self._engine = Engine(loaded)
        self._recipe = recipe
        self._components = {kind.name: kind for kind in recipe.components}
        self._yes_no = recipe.yes_no(recipe.language) or ("yes", "no")
        self._meter = NoveltyMeter(self._engine.runner, read) if read else None
        self._farthest = float(read.distances.max()) if read else 0.0
        self._lock = threading.Lock()

    def __call__(self, job: Job, made: Made) -> str | None:
        """Return why a picture is not plausible, None if it is.

        It is not if the component that was changed is there with less than half the probability that it had
        in the photo, or if a patch of it is farther from all training patches than any calibration picture's
        and any of the photo's own.
        """
        with self._lock:
            if job.target is not None:
                box = _around(job.target.box, job.photo.size)
                kind = self._components[job.target.name]
                before, after = (self._sees(pixels, box, kind) for pixels in _both(made))
                if after < _KEPT * before:
                    return LOST
            if self._meter is not None:
                before, after = (self._distance(pixels, made.seen.crop) for pixels in _both(made))
                if after > max(before, self._farthest):
                    return IMPLAUSIBLE
            return None

    def _sees(self, pixels: Pixels, box: Box, kind: DefectKind) -> float:
        """Return the probability that the model gives a component in a part of a picture."""
        return self._ask(self._shown(pixels, box), question_about(kind, self._recipe))

    def _distance(self, pixels: Pixels, crop: Box) -> float:
        """Return how far the most unlike patch of a part is from the training patches."""
        assert self._meter is not None
        shown = self._engine.runner.processor.pixels(self._shown(pixels, crop))
        self._engine.answer([Request(0, _ASKED, [shown])], max_new_tokens=1)  # the tower reads it
        novelty = self._meter.of([shown])
        assert novelty is not None
        return novelty.distance

    def _ask(self, image: Image.Image, text: str) -> float:
        """Return the probability of yes."""
        shown = self._engine.runner.processor.pixels(image)
        (result,) = self._engine.answer([Request(0, text, [shown], self._yes_no)], max_new_tokens=1)
        if result.choices is None:
            raise InputError(f"the model cannot answer {text!r}: {result.error}")
        return result.choices[self._yes_no[0]]

    def _shown(self, pixels: Pixels, box: Box) -> Image.Image:
        """Return a part of a picture as training shows it: scaled down and encoded as `convert` does."""
        return open_image(BytesIO(encode_part(Image.fromarray(pixels), box, self._recipe)))


def question_about(kind: DefectKind, recipe: Recipe) -> str:
    """Return the question whether a component is there, in the wording of the recipe's presence questions."""
    families = recipe.active_families.values()
    wordings = [text for family in families if family.family == "presence" for text in family.questions]
    wording = next((text for text in wordings if "{phrase}" in text), _ASKED)
    return wording.format(**kind.fields())


def _both(made: Made) -> tuple[Pixels, Pixels]:
    return made.original, made.painted.pixels


def _around(box: Box, size: tuple[int, int]) -> Box:
    """Return a box with what is shown around it, in whole pixels of a picture of `size`."""
    x1, y1, x2, y2 = box
    margin = _CONTEXT * max(x2 - x1, y2 - y1)
    return (
        float(max(0, round(x1 - margin))),
        float(max(0, round(y1 - margin))),
        float(min(size[0], round(x2 + margin))),
        float(min(size[1], round(y2 + margin))),
    )

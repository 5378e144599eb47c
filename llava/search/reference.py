"""A reference picture: described by the model into words, and compared with places by the tower's features.

Two pictures in one prompt do not work on LLaVA-1.5. So the picture is turned into words, which the user can
correct, and the places found by them are compared with it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from llava.common.errors import InputError
from llava.inference.live import LiveEngine
from llava.inference.requests import Request
from llava.inference.sampling import SamplingOptions

DESCRIBE = "What do you see?"
MAX_WORDS = 32
"""Tokens of a description."""


def describe(engine: LiveEngine, reference: Image.Image) -> str:
    """Return what the model calls the thing in the picture, such as `a red star`.

    Raises:
        InputError: the model gives no words.
    """
    options = SamplingOptions(max_new_tokens=MAX_WORDS)
    result = engine.submit(Request("reference", DESCRIBE, [reference]), options).result()
    words = thing_in(result.text)
    if result.error is not None or not words:
        raise InputError(f"the reference picture gives no words ({result.error or 'an empty answer'})")
    return words


def thing_in(description: str) -> str:
    """Return the first thing of a description, not where it is: `A red star at the left.` -> `a red star`."""
    first = re.split(r"[.,;\n]| and | (?:at|in|on|against|of) (?:the|a|an|this) ", description.strip())[0]
    opening = r"^(?:the|this) (?:image|picture|photo) (?:shows|features|depicts|contains) "
    first = re.sub(opening, "", first, flags=re.IGNORECASE)
    first = first.strip()
    return first[:1].lower() + first[1:]


class Likeness:
    """Compares pictures with a reference by the vision tower's features of their patches."""

    def __init__(self, engine: LiveEngine, reference: Image.Image) -> None:
        self._engine = engine
        self._reference = self._features(reference)

    def of(self, pictures: Sequence[Image.Image]) -> list[float]:
        """Return for each picture -1 to 1, best compared with each other's.

        Each patch of the reference is compared with the picture's most similar one (cosine), after the mean
        of all the pictures' patches is taken away, which is what they have in common.
        """
        found = [self._features(picture) for picture in pictures]
        if not found:
            return []
        common = torch.cat(found).mean(dim=0)
        reference = torch.nn.functional.normalize(self._reference - common, dim=-1)
        return [
            float((reference @ torch.nn.functional.normalize(patches - common, dim=-1).T).amax(dim=1).mean())
            for patches in found
        ]

    @torch.inference_mode()
    def _features(self, picture: Image.Image) -> Tensor:
        """Return (patches, width) float32 features of the whole picture."""
        runner = self._engine.runner
        (pixels,) = runner.prepare_images([picture])
        values = pixels.patches[:1].to(runner.model.device, runner.model.dtype)
        config = runner.model.config
        tower = runner.model.model.vision_tower(values, output_hidden_states=True)
        features: Tensor = tower.hidden_states[config.vision_feature_layer][0]
        if config.vision_feature_select_strategy == "default":
            features = features[1:]  # CLIP's class token
        return features.float()

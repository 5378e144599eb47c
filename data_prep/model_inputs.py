"""How large an image is to a model: the square that it is scaled to, and the patches of that square."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.common.boxes import Box
from llava.common.errors import InputError
from llava.common.files import read_json
from llava.common.settings import read_values
from llava.common.shipped import find_config, find_shipped


@dataclass(frozen=True)
class ModelInput:
    """The input of a model: an image is scaled so that its longer side has `side` pixels, and read in patches
    of `patch` pixels.

    `tile` is the side of the tiles that it is cut into, 0 where the image is padded to one square. LLaVA-1.6
    fits most images into 2 x 2 tiles of 336; a very long one goes into 3 x 1 and is somewhat larger than is
    counted here (`image_grid_pinpoints` of its config). LLaVA-OneVision looks at up to 6 x 6 tiles of 384 and
    keeps as many tokens as 3 x 3 have.
    """

    name: str = "LLaVA-1.5"
    side: int = 336
    patch: int = 14
    tile: int = 0

    @property
    def scaling(self) -> str:
        """What is done to an image, in words."""
        if self.tile:
            return f"fitted into {self.side} x {self.side} pixels, in tiles of {self.tile}"
        return f"padded to a square of {self.side} pixels"

    @property
    def summary(self) -> str:
        """The model and how it sees an image, in a few words."""
        return f"{self.name} ({self.side} pixels, patch {self.patch})"

    def thickness(self, box: Box, size: tuple[float, float]) -> float:
        """Return the shorter side of a box in an image of `size` (width, height), in the model's pixels."""
        x1, y1, x2, y2 = box
        return min(x2 - x1, y2 - y1) * self.side / max(size)


MODEL_INPUTS = (ModelInput(), ModelInput("LLaVA-1.6", 672, 14, tile=336))
# Models by their names on the Hub, as their config.json there says.
_KNOWN = (
    (re.compile(r"llava-(v?1\.6|next)"), MODEL_INPUTS[1]),
    (re.compile(r"llava-onevision"), ModelInput("LLaVA-OneVision", 1152, 14, tile=384)),
    (re.compile(r"llava-v?1\.5"), MODEL_INPUTS[0]),
)
# The original LLaVA names its tower by a Hub name: openai/clip-vit-large-patch14-336.
_TOWER = re.compile(r"patch(?P<patch>\d+)-(?P<side>\d+)")


def model_inputs_for(model: str) -> tuple[ModelInput, ...]:
    """Return the input of a model, then those of `MODEL_INPUTS` that are not its own."""
    judge = model_input_of(model)
    shape = (judge.side, judge.patch)
    return (judge, *(other for other in MODEL_INPUTS if (other.side, other.patch) != shape))


def model_input_of(model: str) -> ModelInput:
    """Return the input of a model.

    Args:
        model: A training config (a file or the name of one that ships), a model's folder, a run directory, or
            a Hub name of LLaVA-1.5, LLaVA-1.6 or LLaVA-OneVision.

    Raises:
        InputError: It is none of these, or a file in it does not say how large images are.
    """
    path = find_shipped(Path(model).expanduser())
    if path.is_dir():
        return _of_folder(path)
    if path.suffix in (".yaml", ".yml") or len(path.parts) == 1:
        return _of_config(find_config(path))
    for pattern, known in _KNOWN:
        if pattern.search(model.lower()) and not path.parent.is_dir():
            return ModelInput(path.name, known.side, known.patch, known.tile)
    raise InputError(
        f"--model {model}: no such folder, and no Hub name of LLaVA-1.5, LLaVA-1.6 or LLaVA-OneVision; name "
        "the model's folder or a training config"
    )


def _of_config(file: Path) -> ModelInput:
    model = read_values(file).get("model_name_or_path")
    if not isinstance(model, str):
        raise InputError(f"{file}: no model_name_or_path; name a training config or a model")
    return model_input_of(model)


def _of_folder(folder: Path) -> ModelInput:
    file = folder / "config.json"
    if not file.is_file():
        if (folder / "config.yaml").is_file():  # a run directory
            return _of_config(folder / "config.yaml")
        raise InputError(f"{folder}: neither config.json of a model nor config.yaml of a run directory")
    config: Any = read_json(file)
    shape = _shape_in(config) if isinstance(config, dict) else None
    if shape is None:
        raise InputError(f"{file}: does not say how large the model's images and patches are")
    return ModelInput(folder.resolve().name, *shape)


def _shape_in(config: dict[str, Any]) -> tuple[int, int, int] | None:
    """Return side, patch and tile that a config.json states, Hugging Face's or the original's."""
    vision = config.get("vision_config")
    if isinstance(vision, dict):
        side, patch = vision.get("image_size"), vision.get("patch_size")
    elif found := _TOWER.search(str(config.get("mm_vision_tower"))):
        side, patch = int(found["side"]), int(found["patch"])
    else:
        return None
    if not isinstance(side, int) or not isinstance(patch, int) or side < 1 or patch < 1:
        return None
    grid = config.get("image_grid_pinpoints")
    squares = [size[0] for size in grid or () if isinstance(size, list) and size[:1] == size[1:]]
    if not squares or config.get("image_aspect_ratio") == "pad":
        return side, patch, 0
    limit = re.search(r"anyres_max_(\d+)", str(config.get("vision_aspect_ratio")))
    tiles = math.isqrt(int(limit[1])) if limit else max(squares) // side
    return min(max(squares), tiles * side), patch, side

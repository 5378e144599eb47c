"""Loads SAM (Kirillov et al., 2023) and SAM 2 (Ravi et al., 2024), shows them a picture once, asks for masks.

Pictures are prepared here: transformers' own processors need torchvision.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional
from transformers import Sam2Model, SamModel
from transformers.utils import logging

from llava.common.boxes import Box
from llava.common.errors import InputError, one_line
from llava.common.files import read_json
from llava.common.masks import Mask, Pixels, clean_mask
from llava.model.builder import choose_device
from llava.model.formats import UNUSABLE
from llava.model.hub import resolve_folder
from llava.painting.views import Click, Segment, View

CONFIG = "config.json"
MODELS: dict[str, Any] = {"sam": SamModel, "sam2": Sam2Model, "sam2_video": Sam2Model}
"""The class of each `model_type`. SAM 2's folders say `sam2_video`: their part for videos is left."""

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's colours, which SAM is trained with
AT_ONCE = 64  # prompts in one pass of the decoder


@dataclass(frozen=True)
class Candidates:
    """What SAM gives for prompts: `logits` (prompts, masks, rows, columns) of the whole square that it sees,
    above 0 inside a mask, and `ious` (prompts, masks), the overlap with the truth that it expects of each."""

    logits: NDArray[np.float32]
    ious: NDArray[np.float32]


class Sam:
    """SAM or SAM 2 on its device, in float32."""

    def __init__(self, model: Any, name: str) -> None:
        """Take a model. `name` is for messages."""
        self.name = name
        self.side = int(model.config.prompt_encoder_config.image_size)
        self._model = model

    @torch.inference_mode()
    def look(self, pixels: Pixels) -> SamView:
        """Encode a picture (height, width, 3), which takes most of the time."""
        height, width = pixels.shape[:2]
        shown = (self.side, self.side) if stretches(self._model) else shown_size((height, width), self.side)
        values = prepare(pixels, shown, self.side)[None].to(self._model.device)
        return SamView(
            self._model, self._model.get_image_embeddings(values), (height, width), shown, self.side
        )


class SamView(View):
    """A picture that SAM has encoded."""

    def __init__(
        self, model: Any, embeddings: Any, size: tuple[int, int], shown: tuple[int, int], side: int
    ) -> None:
        """Take what SAM made of a picture.

        Args:
            model: SAM.
            embeddings: The encoded picture.
            size: The picture's (height, width).
            shown: The (height, width) that it has at the top left of the square that SAM sees.
            side: Of the square.
        """
        super().__init__(size)
        self._model, self._embeddings, self._shown, self._side = model, embeddings, shown, side
        self._stretched = stretches(model)

    def ask_clicks(self, prompts: Sequence[Sequence[Click]]) -> Candidates:
        """Return the candidates for prompts that have equally many clicks, in the picture's pixels."""
        points = torch.tensor([[(click.x, click.y) for click in clicks] for clicks in prompts])
        labels = torch.tensor([[int(click.inside) for click in clicks] for clicks in prompts])
        points = points.float() * self._scale()
        return self._ask(len(prompts), input_points=points, input_labels=labels)

    def ask_boxes(self, boxes: Sequence[Box]) -> Candidates:
        """Return the candidates for boxes, in the picture's pixels."""
        corners = torch.tensor([list(box) for box in boxes]).float() * self._scale().repeat(2)
        return self._ask(len(boxes), input_boxes=corners)

    def _scale(self) -> Tensor:
        """Return what a picture's (x, y) is multiplied by in the square."""
        return torch.tensor([self._shown[1] / self.size[1], self._shown[0] / self.size[0]])

    @torch.inference_mode()
    def _ask(self, count: int, **prompts: Tensor) -> Candidates:
        """Run the decoder on prompts, whose first dimension is `count`."""
        logits, ious = [], []
        for start in range(0, count, AT_ONCE):
            part = {
                name: values[None, start : start + AT_ONCE].to(self._model.device)
                for name, values in prompts.items()
            }
            found = self._model(image_embeddings=self._embeddings, multimask_output=True, **part)
            logits.append(found.pred_masks[0].float().cpu())
            ious.append(found.iou_scores[0].float().cpu())
        return Candidates(torch.cat(logits).numpy(), torch.cat(ious).numpy())

    def filled(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the part of logits (..., rows, columns) that the picture fills: masks end at its edge."""
        rows, columns = (
            math.ceil(shown * cells / self._side)
            for shown, cells in zip(self._shown, logits.shape[-2:], strict=True)
        )
        return logits[..., :rows, :columns]

    def enlarge(self, logits: NDArray[np.float32]) -> Mask:
        """Return the mask (height, width) of a candidate (rows, columns) of the whole square, cleaned."""
        cells = torch.from_numpy(logits)[None, None]
        if not self._stretched:  # the square is cut at the picture's edge
            cells = _resized(cells, (self._side, self._side))[..., : self._shown[0], : self._shown[1]]
        return clean_mask((_resized(cells, self.size)[0, 0] > 0).numpy())

    def _at_clicks(self, prompts: Sequence[Sequence[Click]]) -> list[Segment]:
        alike = defaultdict(list)
        for number, clicks in enumerate(prompts):
            alike[len(clicks)].append(number)
        segments: dict[int, Segment] = {}
        for numbers in alike.values():
            found = self.ask_clicks([prompts[number] for number in numbers])
            segments.update(zip(numbers, self._best(found), strict=True))
        return [segments[number] for number in range(len(prompts))]

    def _in_boxes(self, boxes: Sequence[Box]) -> list[Segment]:
        return self._best(self.ask_boxes(boxes)) if boxes else []

    def _best(self, found: Candidates) -> list[Segment]:
        """Return the candidate of each prompt that SAM expects the most of."""
        best = found.ious.argmax(axis=1)
        return [
            Segment(self.enlarge(logits[choice]), float(ious[choice]))
            for logits, ious, choice in zip(found.logits, found.ious, best, strict=True)
        ]


def stretches(model: Any) -> bool:
    """Tell whether a model sees every picture as a square, as SAM 2 does; SAM keeps its shape."""
    return isinstance(model, Sam2Model)


def _resized(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(logits, size, mode="bilinear", align_corners=False)


def shown_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return the (height, width) that a picture of (height, width) has in SAM's square: its longer side fills
    it."""
    scale = side / max(size)
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def prepare(pixels: Pixels, shown: tuple[int, int], side: int) -> Tensor:
    """Return what the encoder reads, (3, side, side): a picture (height, width, 3) resized to `shown`, and
    zeros to the right of it and below."""
    resized = Image.fromarray(pixels).resize(shown[::-1], Image.Resampling.BILINEAR)
    mean, std = np.array(MEAN, np.float32), np.array(STD, np.float32)
    scaled = (np.asarray(resized, np.float32) / 255 - mean) / std
    square = torch.zeros(3, side, side)
    square[:, : shown[0], : shown[1]] = torch.from_numpy(scaled).permute(2, 0, 1)
    return square


def load_sam(model: str | Path, device: str | None = None) -> Sam:
    """Load SAM or SAM 2.

    Args:
        model: A folder that transformers saved, with weights in safetensors; or a Hub name.
        device: Defaults to CUDA where there is one.

    Raises:
        InputError: The folder is no SAM, or cannot be loaded.
    """
    device = choose_device(device)
    folder = resolve_folder(model)
    kind = _model_type(folder)
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        loaded, report = MODELS[kind].from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except (*UNUSABLE, RuntimeError) as error:
        raise InputError(f"{folder}: SAM cannot be loaded ({one_line(error)})") from None
    finally:
        logging.set_verbosity(verbosity)
    if missing := sorted(report["missing_keys"]):  # they would be random
        raise InputError(f"{folder}: its weights lack {len(missing)} of SAM's tensors, such as {missing[0]}")
    return Sam(loaded.eval().requires_grad_(False).to(device), Path(model).name)


def _model_type(folder: Path) -> str:
    """Return the kind of SAM that a folder holds; InputError if it holds none."""
    if not (folder / CONFIG).is_file():
        raise InputError(f"{folder}: no {CONFIG} in it; name a folder of SAM as transformers saves it")
    config = read_json(folder / CONFIG)
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind not in MODELS:
        raise InputError(f"{folder / CONFIG}: model_type {kind} is no SAM; supported: {', '.join(MODELS)}")
    return str(kind)

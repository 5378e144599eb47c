"""The novelty bank: what a vision tower made of training and calibration pictures, in one file.

A safetensors file; its metadata has `bank`, a JSON of `BankInfo`. Tensors, for v vectors of width w, k
components and c calibration pictures:

    vectors (v, w) float16              whitened patch features of training pictures
    mean (w,), whitening (w, w)         whitened = (feature - mean) @ whitening
    picture_mean (w,), components (w, k)
                                        projection = (a picture's mean feature - picture_mean) @ components
    distances (c,), projections (c, k)  of the calibration pictures
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from llava.common.errors import InputError, one_line
from llava.common.files import atomic_path, first_problem
from llava.inference.model_runner import ModelRunner
from llava.novelty.patches import nearest_distances, neighbourhood_means
from llava.novelty.pvalue import PValues

MAX_VECTORS = 20_000
"""Of any bank: 20,000 of width 1,024 take 39 MiB, and the rest of the file some 5."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class CalibrationPicture(_Part):
    """A picture that neither training nor the bank's vectors have seen. Distances of those that are `sound`
    calibrate the p-values; the drift test takes all."""

    group: str
    sound: bool
    sha256: str
    """Of its file."""


class BankInfo(_Part):
    """What is said of a bank: which tower it is of, and which pictures it was made from.

    Features are what goes into layer `layer` of the tower, in means over `neighbourhood` x `neighbourhood`
    patches.
    """

    format: Literal["llava-inspect novelty bank"] = "llava-inspect novelty bank"
    version: Literal[1] = 1
    model_id: str
    tower: str
    """`tower_fingerprint` of the model."""
    dtype: str
    layer: int
    neighbourhood: int
    training: list[str]
    """SHA-256 of the training pictures' files."""
    calibration: list[CalibrationPicture]


@dataclass(frozen=True)
class NoveltyBank:
    """A bank in memory; the module's docstring has the tensors."""

    info: BankInfo
    vectors: Tensor
    mean: Tensor
    whitening: Tensor
    picture_mean: Tensor
    components: Tensor
    distances: NDArray[np.float64]
    projections: NDArray[np.float64]

    @cached_property
    def p_value(self) -> PValues:
        """P-values among the sound calibration pictures; among all where none is sound."""
        pictures = self.info.calibration
        all_known = not any(picture.sound for picture in pictures)
        chosen = [at for at, picture in enumerate(pictures) if picture.sound or all_known]
        return PValues([self.distances[at] for at in chosen], [pictures[at].group for at in chosen])

    @property
    def calibration_groups(self) -> list[str]:
        """The group of each calibration picture."""
        return [picture.group for picture in self.info.calibration]

    def patch_distances(self, patches: Tensor) -> Tensor:
        """Return the distance of each patch to the nearest in the bank.

        Args:
            patches: (squares, side, side, width) float32 features of an image (`split_images`).

        Returns:
            (squares, side, side).
        """
        features = neighbourhood_means(patches, self.info.neighbourhood)
        whitened = (features.flatten(0, 2) - self.mean) @ self.whitening
        return nearest_distances(whitened, self.vectors).view(features.shape[:3])

    def project(self, patches: Tensor) -> Tensor:
        """Return the projection (k,) of an image's mean feature; `patches` as for `patch_distances`."""
        return (patches.mean(dim=(0, 1, 2)) - self.picture_mean) @ self.components

    def to(self, device: torch.device) -> NoveltyBank:
        """Return the bank on `device`, to compare features there."""
        tensors = {name: getattr(self, name).to(device, torch.float32) for name in _ON_DEVICE}
        return NoveltyBank(self.info, **tensors, distances=self.distances, projections=self.projections)

    def require_model(self, runner: ModelRunner) -> None:
        """Raise InputError unless the bank is of the loaded model's vision tower, in its precision."""
        if self.info.dtype != str(runner.model.dtype):
            raise InputError(
                f"the novelty bank was made in {_plain(self.info.dtype)}, the model runs in "
                f"{_plain(str(runner.model.dtype))}: distances would not compare; make the bank on this kind "
                "of device"
            )
        if self.info.tower != tower_fingerprint(runner):
            raise InputError(
                f"the novelty bank is of another model ({self.info.model_id}: its vision tower differs); "
                "make one of this model"
            )

    def save(self, path: Path) -> None:
        """Write the bank, whole or not at all."""
        tensors = {name: getattr(self, name).cpu().contiguous() for name in _ON_DEVICE}
        tensors["vectors"] = tensors["vectors"].half()
        tensors |= {name: torch.from_numpy(getattr(self, name)) for name in _OF_CALIBRATION}
        with atomic_path(path) as temporary:
            temporary.write_bytes(save(tensors, metadata={"bank": self.info.model_dump_json()}))


_ON_DEVICE = ("vectors", "mean", "whitening", "picture_mean", "components")
_OF_CALIBRATION = ("distances", "projections")


def read_bank(path: Path) -> NoveltyBank:
    """Read a bank; InputError if the file is absent, damaged or something else."""
    remedy = "llava-inspect novelty makes such a file"
    if not path.is_file():
        raise InputError(f"{path}: no such novelty bank; {remedy}")
    try:
        file: Any
        with safe_open(str(path), framework="pt") as file:
            info = BankInfo.model_validate_json((file.metadata() or {}).get("bank", "{}"))
            tensors = {name: file.get_tensor(name) for name in (*_ON_DEVICE, *_OF_CALIBRATION)}
    except ValidationError as error:
        raise InputError(f"{path} is no novelty bank ({first_problem(error)}); {remedy}") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: no novelty bank, or damaged ({one_line(error)}); {remedy}") from None
    arrays = {name: tensors.pop(name).numpy() for name in _OF_CALIBRATION}
    return NoveltyBank(info, **tensors, **arrays)


def tower_fingerprint(runner: ModelRunner) -> str:
    """Return a hash of the vision tower's weights, as they were loaded, and of what pixels it is given."""
    digest = hashlib.sha256()
    for name, tensor in sorted(runner.model.model.vision_tower.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy())
    vision = runner.processor.vision
    square = vision.square_processor
    digest.update(f"{type(vision).__name__} {square.size} {square.mean_colour}".encode())
    return digest.hexdigest()


def _plain(dtype: str) -> str:
    return dtype.removeprefix("torch.")

"""Whether a decision is for the model that is to be loaded."""

from __future__ import annotations

from llava.deciding.decision import Decision
from llava.mm_utils import get_model_name_from_path
from llava.model.folder import ModelFolder


def check_folder(decision: Decision, folder: ModelFolder, unit: str) -> None:
    """Raise InputError if a decision was made for another model, or for another unit than is asked about.

    Args:
        decision: What was certified.
        folder: The model's.
        unit: What questions are about: picture, object or tile.
    """
    decision.check_unit(unit)
    decision.check_model(fingerprint=folder.fingerprint, model_id=get_model_name_from_path(folder.name))

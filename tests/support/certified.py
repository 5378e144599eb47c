"""Make a decision as `certify` would write it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llava.deciding.decision import Decision
from llava.model.folder import open_model_folder


def certified(model: Path, **changed: Any) -> Decision:
    """Make a decision for one question to a model; `changed` are fields that are to be others."""
    bound = {"rate": 0.05, "confidence": 0.95, "certified": True, "groups": 60, "wrong": 0, "needed": 59}
    calls = {"sound": 0, "defect": 60, "ask": 0}
    nothing = {"name": "a.jsonl", "sha256": "0", "lines": 60}
    values: dict[str, Any] = {
        "sound_below": 0.05, "defect_from": 0.8, "certified": True, "guarantee": "It is promised.",
        "misses": bound | {"best": 0.05}, "defective": calls, "sound": calls, "to_person": 0.0,
        "task": "presence", "wordings": ["Is there a defect?"], "choices": ("yes", "no"),
        "unit": "picture", "model_id": "red", "fingerprint": open_model_folder(str(model)).fingerprint,
        "limits": ["Other cameras are not covered."], "answers": nothing, "truth": nothing, "pictures": [],
    }  # fmt: skip
    return Decision.model_validate(values | changed)

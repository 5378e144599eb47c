"""Record sets of small training data, made as a run makes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from llava.common.settings import validate_settings
from llava.model.folder import open_model_folder
from llava.train.config import TrainSettings
from llava.train.data.token_cache import Encoding
from llava.train.dataset import RecordSet
from llava.train.finetune import make_record_processor


def settings_for(base: Path, folder: Path, **changes: Any) -> TrainSettings:
    values = {
        "model_name_or_path": str(base),
        "data_path": folder / "train.json",
        "image_folder": folder,
        "output_dir": folder / "run",
        "max_length": 512,
    }
    return validate_settings(TrainSettings, values | changes, "test")


def no_bar(items: Iterable[Any], description: str, total: int | None) -> Iterator[Any]:
    return iter(items)


def read_records(base: Path, folder: Path, **changes: Any) -> RecordSet:
    settings = settings_for(base, folder, **changes)
    processor = make_record_processor(open_model_folder(base), settings)
    encoding = Encoding(processor, settings.image_folder, settings.max_length, settings.packing)
    room = settings.picture_cache_gb * 1e9
    return RecordSet(settings.data_path, encoding, folder / "token_cache", picture_room=room, progress=no_bar)

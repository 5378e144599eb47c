"""Record sets of small training data, made as a run makes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from llava.common.settings import validate_settings
from llava.model.folder import open_model_folder
from llava.train.config import TrainSettings
from llava.train.dataset import ImageLoader, RecordSet
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


def no_bar(names: Iterable[str], description: str, total: int) -> Iterator[str]:
    return iter(names)


def read_records(base: Path, folder: Path, **changes: Any) -> RecordSet:
    settings = settings_for(base, folder, **changes)
    processor = make_record_processor(open_model_folder(base), settings)
    store = ImageLoader(folder, processor, settings.picture_cache_gb * 1e9)
    return RecordSet(
        settings.data_path, store, max_length=settings.max_length, packing=settings.packing, progress=no_bar
    )

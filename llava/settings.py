"""YAML files validated by pydantic, with `key=value` overrides. Torch-free.

Every settings class derives from `Settings`: unknown keys are errors that name the nearest known one.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, ValidationError
from yaml import YAMLError

from llava.errors import InputError
from llava.files import first_problem, read_text


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


SettingsType = TypeVar("SettingsType", bound=Settings)


def load_settings(cls: type[SettingsType], path: Path, overrides: Sequence[str] = ()) -> SettingsType:
    """Read the YAML file `path`, apply `key=value` (dots reach inside), validate as `cls`.

    Raises InputError naming the file and field for YAML that does not parse, an unknown key (with the
    nearest known one) or a value that does not fit.
    """
    for override in overrides:
        if "=" not in override or override.startswith("-"):
            raise InputError(f"{override!r}: write overrides as key=value, for instance epochs=3")
    try:
        merged = OmegaConf.merge(OmegaConf.create(read_text(path)), OmegaConf.from_dotlist(list(overrides)))
        values = OmegaConf.to_container(merged, resolve=True)
    except (YAMLError, OmegaConfBaseException, ValueError, TypeError) as error:
        raise InputError(f"{path}: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected `key: value` lines, found {type(values).__name__}")
    return validate_settings(cls, {str(key): value for key, value in values.items()}, str(path))


def validate_settings(cls: type[SettingsType], values: dict[str, Any], source: str) -> SettingsType:
    """`values` as `cls`; the InputError of a misfit begins with `source`."""
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            if problem["type"] == "extra_forbidden":
                *parents, unknown = [str(part) for part in problem["loc"]]
                known = _known_keys(cls, parents)
                nearest = difflib.get_close_matches(unknown, known, n=1, cutoff=0.5)
                hint = (
                    f"did you mean {nearest[0]!r}?" if nearest else f"known keys: {', '.join(sorted(known))}"
                )
                raise InputError(f"{source}: unknown key {'.'.join([*parents, unknown])!r}; {hint}") from None
        raise InputError(f"{source}: {first_problem(error)}") from None


def _known_keys(cls: type[BaseModel], parents: Sequence[str]) -> list[str]:
    """The field names of the settings class that the path `parents` (fields, list indices) leads to."""
    found: type[BaseModel] = cls
    annotation: Any = cls
    for name in parents:
        if name in found.model_fields:
            annotation = found.model_fields[name].annotation
        for candidate in _models_in(annotation):
            found = candidate
            break
    return list(found.model_fields)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for part in typing.get_args(annotation) for model in _models_in(part)]

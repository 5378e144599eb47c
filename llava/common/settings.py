"""Read YAML files with `key=value` overrides and validate them with pydantic. Torch-free.

Every settings class derives from `Settings`: an unknown key is an error that names the nearest known one.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, ValidationError
from yaml import MarkedYAMLError, YAMLError

from llava.common.errors import InputError, one_line
from llava.common.files import first_problem, read_text

_YAML_ERRORS = (YAMLError, OmegaConfBaseException, ValueError, TypeError)


class Settings(BaseModel):
    """The base class of settings: no unknown keys."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


SettingsType = TypeVar("SettingsType", bound=Settings)


def load_settings(cls: type[SettingsType], path: Path, overrides: Sequence[str] = ()) -> SettingsType:
    """Read the YAML file `path`, apply `key=value` overrides (dots for nested keys) and validate it as `cls`.

    A file may build on others: `extends: base.yaml` or a list of names, relative to the file's own folder.
    They are read first, in their order; later values override earlier ones, mappings are merged and lists
    replaced.

    Raises:
        InputError: with the file and field; YAML that does not parse, an unknown key (with the nearest known
            one) or a value that does not fit.
    """
    for override in overrides:
        if "=" not in override or override.startswith("-"):
            raise InputError(f"{override!r}: write overrides as key=value, for instance epochs=3")
    values = read_values(path)
    try:
        merged = OmegaConf.merge(values, OmegaConf.from_dotlist(list(overrides)))
        plain = OmegaConf.to_container(merged, resolve=True)
    except _YAML_ERRORS as error:
        raise InputError(f"{path}: {one_line(error)}") from None
    assert isinstance(plain, dict)
    return validate_settings(cls, {str(key): value for key, value in plain.items()}, str(path))


def read_values(path: Path, extended_by: tuple[Path, ...] = ()) -> DictConfig:
    """Return the values of a YAML file and of those that it extends, as they are written; `extended_by`
    extend it. InputError as for `load_settings`."""
    if path.resolve() in extended_by:
        raise InputError(f"{path}: extends itself, by way of {extended_by[-1].name}; take one `extends` out")
    text = read_text(path)
    try:
        values = OmegaConf.create(text)
        if not isinstance(values, DictConfig):
            raise InputError(f"{path}: expected `key: value` lines, found a list")
        extends = values.pop("extends", None)
        names = list(extends) if isinstance(extends, ListConfig) else [] if extends is None else [extends]
        if not all(isinstance(name, str) for name in names):
            raise InputError(f"{path}: extends: write a file name or a list of them")
        bases = [read_values(path.parent / name, (*extended_by, path.resolve())) for name in names]
        merged = OmegaConf.merge(*bases, values)
    except AssertionError:  # OmegaConf's, for a bare number
        raise InputError(f"{path}: expected `key: value` lines") from None
    except MarkedYAMLError as error:
        raise InputError(f"{path}{_yaml_problem(text, error)}") from None
    except _YAML_ERRORS as error:
        raise InputError(f"{path}: {one_line(error)}") from None
    assert isinstance(merged, DictConfig)
    return merged


def _yaml_problem(text: str, error: MarkedYAMLError) -> str:
    """Return `, line 3: what is wrong` for a text that is no YAML."""
    if error.problem_mark is None:
        return f": {one_line(error)}"
    number = error.problem_mark.line
    line = "".join(text.splitlines()[number : number + 1])
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return f", line {number + 1}: begins with a tab; YAML is indented by spaces, so write these instead"
    return f", line {number + 1}: not valid YAML ({error.problem})"


def validate_settings(cls: type[SettingsType], values: dict[str, Any], source: str) -> SettingsType:
    """Validate `values` as `cls`; the InputError for one that does not fit begins with `source`."""
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
    """Return the field names of the class that the path `parents` (fields, list indices) leads to."""
    model: type[BaseModel] = cls
    annotation: Any = cls
    for name in parents:
        if name in model.model_fields:
            annotation = model.model_fields[name].annotation
        model = next(iter(_models_in(annotation)), model)
    return list(model.model_fields)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for part in typing.get_args(annotation) for model in _models_in(part)]

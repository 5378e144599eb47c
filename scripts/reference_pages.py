"""Write the reference as Markdown from the code: what commands say with `--help`, fields of YAML files."""

from __future__ import annotations

import ast
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout, suppress
from io import StringIO
from itertools import groupby
from pathlib import Path
from textwrap import dedent
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, wherever it is called from

from data_prep.recipe.schema import Recipe
from llava.common.cli import started_as
from llava.common.settings import Settings
from llava.train.config import TrainSettings
from llava_inspect.commands import COMMANDS, Command

COLUMNS = "110"
TRAINING = """Every key of a training config (`llava-inspect configs`), which may also be set behind the
command, such as `epochs=5` or `lora.rank=64`. What they do: [training.md](training.md)."""
RECIPES = """Every field of a recipe (`llava-inspect recipes`), which may also be set with `--set-recipe`
of `run` or behind `convert`, such as `splits.test=0.2`. How to write one: [recipes.md](recipes.md)."""


def commands_page() -> str:
    """Return what every command of llava-inspect says of itself."""
    parts = ["# Commands", "What each command says with `--help`."]
    for group, commands in groupby(COMMANDS, key=lambda command: command.group):
        parts.append(f"## {group}")
        for command in commands:
            parts.append(f"### llava-inspect {command.name}\n\n```text\n{help_of(command)}\n```")
    return "\n\n".join(parts) + "\n"


def help_of(command: Command) -> str:
    """Return what `llava-inspect COMMAND --help` prints."""
    printed = StringIO()
    with (
        mock.patch.dict(os.environ, {"COLUMNS": COLUMNS, "NO_COLOR": "1"}),
        started_as(f"llava-inspect {command.name}"),
        redirect_stdout(printed),
        suppress(SystemExit),
    ):
        command.run(["--help"])
    return printed.getvalue().strip()


def settings_page(title: str, introduction: str, top: type[Settings]) -> str:
    """Return a table for `top` and for each class of settings within it."""
    schema = top.model_json_schema()
    definitions: dict[str, Any] = schema.get("$defs", {})
    classes = {cls.__name__: cls for cls in _subclasses(Settings)}
    parts = [f"# {title}", introduction, _table(schema, classes[top.__name__])]
    met: list[str] = []
    waiting = _references(schema["properties"])
    while waiting:
        name = waiting.pop(0)
        if name not in met:
            met.append(name)
            waiting = [*_references(definitions[name].get("properties", {})), *waiting]
    for name in met:
        if name in classes:  # not a type of few words, which the tables spell out
            words = dedent("    " + (classes[name].__doc__ or "")).strip()
            parts += [f"## {name}", words, _table(definitions[name], classes[name])]
    return "\n\n".join(parts) + "\n"


def _subclasses(cls: type[Settings]) -> list[type[Settings]]:
    return [cls, *(further for below in cls.__subclasses__() for further in _subclasses(below))]


def _references(value: Any) -> list[str]:
    """Return the names of the definitions that a part of a JSON schema refers to."""
    if isinstance(value, Mapping):
        here = [value["$ref"].rpartition("/")[2]] if "$ref" in value else []
        return here + [name for part in value.values() for name in _references(part)]
    return [name for part in value for name in _references(part)] if isinstance(value, list) else []


def _table(schema: Mapping[str, Any], cls: type[Settings]) -> str:
    meanings = _meanings(cls)
    lines = ["| field | value | default | meaning |", "|---|---|---|---|"]
    for name, field in schema.get("properties", {}).items():
        default = cls.model_fields[name]
        shown = (
            "**required**"
            if default.is_required()
            else _default(default.get_default(call_default_factory=True))
        )
        cells = [f"`{name}`", _value(field), shown, meanings.get(name, "")]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _default(value: Any) -> str:
    """Return a default as YAML has it; nothing for one that another table gives."""
    if isinstance(value, Settings) or value in ([], {}, ""):
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(f"`{part}`" for part in value)
    return f"`{value}`".replace("`None`", "`null`").replace("`True`", "`true`").replace("`False`", "`false`")


def _value(field: Mapping[str, Any]) -> str:
    """Return in words what a part of a JSON schema allows."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for key in ("anyOf", "allOf"):
        if key in field:
            return " or ".join(dict.fromkeys(map(_value, field[key])))
    if "enum" in field:
        return " or ".join(f"`{choice}`" for choice in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    kind = field.get("type", "anything")
    if kind == "array":
        return "list of " + _value(field.get("items", {}))
    if kind == "object":
        return "by name: " + _value(field.get("additionalProperties", {}))
    words = {"string": "text", "integer": "whole number", "boolean": "true or false", "null": "null"}
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = ", ".join(f"{sign} {field[key]:g}" for key, sign in signs.items() if key in field)
    name = "path" if field.get("format") == "path" else words.get(kind, kind)
    return f"{name} {limits}".strip()


def _meanings(cls: type[Settings]) -> dict[str, str]:
    """Return the docstring below each field of a class and of those that it is made of."""
    found: dict[str, str] = {}
    for part in reversed(cls.__mro__):
        if not (issubclass(part, Settings) and part is not Settings):
            continue
        [body] = ast.parse(dedent(inspect.getsource(part))).body
        assert isinstance(body, ast.ClassDef)
        for field, after in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                assert isinstance(field.target, ast.Name)
                found[field.target.id] = " ".join(str(after.value.value).split())
    return found


REFERENCE: dict[str, Callable[[], str]] = {
    "commands.md": commands_page,
    "training_settings.md": lambda: settings_page("Training settings", TRAINING, TrainSettings),
    "recipe_fields.md": lambda: settings_page("Recipe fields", RECIPES, Recipe),
}
"""What writes each page, by its file name."""

"""The files that ship with the toolkit: configs, recipes and the embedded base model.

In a checkout they lie in its own folders, in an installed wheel under llava/shipped with the same relative
paths (setup.py, which has the same list, puts them there). So `configs/tiny_cpu.yaml` and
`playground/tiny-llava` mean the same wherever a command is run: a file of that path if there is one, else the
shipped one.
"""

from __future__ import annotations

from pathlib import Path

from llava.common.errors import InputError

CONFIGS = Path("configs")
RECIPES = CONFIGS / "recipes"
DEFAULT_CONFIG = "tiny_cpu"  # whose model is trained where the user names none
EMBEDDED_MODEL = Path("playground/tiny-llava")
SHIPPED = (CONFIGS, EMBEDDED_MODEL)


def shipped_root() -> Path:
    """Return the folder that holds configs/ and playground/tiny-llava."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "shipped"
    return installed if installed.is_dir() else package.parent


def find_shipped(path: Path) -> Path:
    """Return `path` if it exists, else the shipped file or folder of that relative path; `path` itself if
    neither exists. Nothing else of a checkout (its runs, its data) is found from other folders."""
    if path.exists() or path.is_absolute() or ".." in path.parts:
        return path
    if not any(path.is_relative_to(folder) for folder in SHIPPED):
        return path
    shipped = shipped_root() / path
    return shipped if shipped.exists() else path


def find_config(name: Path) -> Path:
    """Find a training config: a path, or the name of one that ships (`tiny_cpu`)."""
    return _find(name, CONFIGS, "config")


def find_recipe(name: Path) -> Path:
    """Find a recipe: a path, or the name of one that ships (`insulator`)."""
    return _find(name, RECIPES, "recipe")


def names_in(folder: Path) -> list[str]:
    """List the names of the YAML files in a shipped folder such as CONFIGS, without the translations that
    recipes extend (`insulator.ko.yaml`)."""
    stems = (path.stem for path in (shipped_root() / folder).glob("*.yaml"))
    return sorted(stem for stem in stems if "." not in stem)


def _find(name: Path, folder: Path, noun: str) -> Path:
    found = find_shipped(name)
    if found.is_file() or len(name.parts) != 1 or name.suffix:
        return found  # if there is no such file, whoever reads it says so
    if name.name in names_in(folder):
        return shipped_root() / folder / f"{name}.yaml"
    raise InputError(f"{name}: no such file, and no {noun} of that name ships: {', '.join(names_in(folder))}")

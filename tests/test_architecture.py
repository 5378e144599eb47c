"""The house is built as docs/architecture.md says: its table of rooms names every import between rooms."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.support.paths import REPO

PACKAGES = ("llava", "data_prep", "eval", "llava_inspect")
ROW = re.compile(r"\| `(?P<room>[\w.]+)` \| (?P<task>[^|]+) \| (?P<imports>[^|]+) \|")


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(REPO).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for name in PACKAGES for path in (REPO / name).rglob("*.py")}


def room_of(module: str) -> str:
    """A folder of modules is a room, and so is a module that lies directly in its package."""
    if MODULES[module].name == "__init__.py" or module.count(".") == 1:
        return module
    return module.rpartition(".")[0]


def imports_of(module: str) -> Iterator[str]:
    """The project's modules that `module` imports, inside functions too."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            members = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else node.module for name in members]
        else:
            continue
        yield from (name for name in names if name in MODULES)


@pytest.fixture(scope="module")
def rooms() -> dict[str, set[str]]:
    """The table's rows, in their order: room -> rooms that it may import."""
    text = (REPO / "docs" / "architecture.md").read_text(encoding="utf-8")
    return {row["room"]: set(re.findall(r"`([\w.]+)`", row["imports"])) for row in ROW.finditer(text)}


def test_the_table_names_every_import_between_rooms(rooms: dict[str, set[str]]) -> None:
    found: dict[str, set[str]] = {room_of(module): set() for module in MODULES}
    for module in MODULES:
        found[room_of(module)] |= {room_of(name) for name in imports_of(module)} - {room_of(module)}
    # a package's own __init__ is a room without imports of its own; what it re-exports is its members' affair
    documented = {room for room in found if room in rooms}
    missing = {room for room in found if room not in rooms and found[room]}
    assert not missing, f"docs/architecture.md has no row for {sorted(missing)}"
    assert rooms.keys() == documented, (
        f"docs/architecture.md has rows for no code: {rooms.keys() - documented}"
    )
    for room, allowed in rooms.items():
        new, gone = found[room] - allowed, allowed - found[room]
        assert not new, f"{room} imports {sorted(new)}, which docs/architecture.md does not allow"
        assert not gone, f"{room} imports {sorted(gone)} no more: take it out of docs/architecture.md"


def test_a_room_imports_only_rooms_above_it_in_the_table(rooms: dict[str, set[str]]) -> None:
    order = list(rooms)
    for room, allowed in rooms.items():
        below = {other for other in allowed if order.index(other) > order.index(room)}
        assert not below, f"{room} imports {sorted(below)}, which are further down in the table: a circle"


def test_no_modules_import_each_other_in_a_circle() -> None:
    try:
        TopologicalSorter({module: set(imports_of(module)) - {module} for module in MODULES}).prepare()
    except CycleError as error:
        pytest.fail(f"these import each other: {' <- '.join(error.args[1])}")


def test_what_needs_no_torch_does_not_load_it() -> None:
    """llava.common serves all packages, and data_prep runs where no torch is installed."""
    free = [
        name for name in MODULES if name.startswith(("llava.common", "data_prep")) and "__main__" not in name
    ]
    code = (
        "import importlib, sys\n"
        f"for name in {free}: importlib.import_module(name)\n"
        "print([name for name in ('torch', 'transformers', 'peft') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

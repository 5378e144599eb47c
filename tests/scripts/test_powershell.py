"""The PowerShell scripts. Nothing here runs PowerShell: they are parsed, and compared with the shell's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

SCRIPTS = ("setup.ps1", "quickstart.ps1")


@pytest.mark.parametrize("name", SCRIPTS)
def test_powershell_can_read_it(repo: Path, name: str) -> None:
    reason = "needs tree-sitter-powershell: scripts/setup.sh dev"
    tree_sitter = pytest.importorskip("tree_sitter", reason=reason)
    grammar = pytest.importorskip("tree_sitter_powershell", reason=reason)
    parser = tree_sitter.Parser(tree_sitter.Language(grammar.language()))
    script = (repo / "scripts" / name).read_bytes()
    script.decode("ascii")  # Windows PowerShell 5.1 takes a file without a mark for one of an old encoding
    assert not parser.parse(script).root_node.has_error
    assert parser.parse(script + b"\nif (\n").root_node.has_error


def test_both_quickstarts_do_the_same(repo: Path) -> None:
    shell, power = (
        (repo / "scripts" / f"quickstart.{end}").read_text(encoding="utf-8") for end in ("sh", "ps1")
    )
    for pattern in (
        r"Render [\w ,()-]+\.",
        r"--count\W+(\d+)",
        r"--seed\W+(\d)",
        r"--defect-share\W+([\d.]+)",
    ):
        found = re.findall(pattern, shell)
        assert found and re.findall(pattern, power) == found
    options = r"splits\.val=[\d.]+|dialogues=\d|\^\(epochs\S+?\)\?\$"
    assert sorted(re.findall(options, shell)) == sorted(re.findall(options, power))

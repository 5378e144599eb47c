"""What a page of the docs has its reader type."""

from __future__ import annotations

import re
import shlex
from pathlib import Path


def blocks(page: Path, title: str, language: str = "bash") -> list[str]:
    """Return the blocks of `language` under the page's heading `title`; of all of it where that is empty."""
    text = page.read_text(encoding="utf-8")
    section = text.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0] if title else text
    found = re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert found
    return found


def commands(block: str) -> list[list[str]]:
    """Return the words of each command of a block, as a shell reads them; comments are left out."""
    lines = block.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]

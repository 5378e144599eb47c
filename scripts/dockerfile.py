"""Read a Dockerfile and a .dockerignore, as far as the ones here go: no heredocs, no escapes, no `?`."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path


def steps_of(dockerfile: str) -> Iterator[tuple[str, str]]:
    """Yield each instruction of a Dockerfile with what follows it; continued lines are joined."""
    kept = [line for line in dockerfile.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in "\n".join(kept).replace("\\\n", " ").splitlines():
        name, _, rest = line.strip().partition(" ")
        yield name.upper(), rest.strip()


def flags_of(text: str) -> tuple[list[str], str]:
    """Split what follows COPY or RUN into the values of its flags (--from=, --mount=) and the rest."""
    flags = []
    while match := re.match(r"--[\w-]+=(\S+)\s+", text):
        flags.append(match[1])
        text = text[match.end() :]
    return flags, text


def expand(text: str, variables: dict[str, str]) -> str:
    """Replace $NAME and ${NAME}; by nothing where there is no such variable."""
    return re.sub(r"\$(?:(\w+)|\{(\w+)\})", lambda match: variables.get(match[1] or match[2], ""), text)


def is_ignored(path: str, patterns: Sequence[str]) -> bool:
    """Tell whether a .dockerignore keeps a path out: the last pattern that matches it, or a folder above it,
    decides; `!` takes it back in."""
    parts, ignored = path.split("/"), False
    for pattern in patterns:
        words = re.split(r"(\*\*/|\*\*|\*)", pattern.removeprefix("!").strip("/"))
        meaning = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*"}
        expression = "".join(meaning.get(word) or re.escape(word) for word in words)
        if any(re.fullmatch(expression, "/".join(parts[:end])) for end in range(1, len(parts) + 1)):
            ignored = not pattern.startswith("!")
    return ignored


def copy_context(context: Path, target: Path) -> None:
    """Copy the files that a builder would be sent."""
    lines = (context / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    for path in context.rglob("*"):
        name = path.relative_to(context).as_posix()
        if path.is_file() and not is_ignored(name, patterns):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target / name)

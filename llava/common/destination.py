"""Outputs at an address: made in a folder here, and sent when they are complete. Torch-free."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from llava.common.remote import address_of, list_files, remove_file, send_file

_SENDERS = 8


def made_at(output: Path, cache: Path) -> Path:
    """Return where an output, a file or a folder, is made: where it belongs, or for an address in the cache
    folder, always at the same place, so that an interrupted command goes on."""
    address = address_of(output)
    if address is None:
        return output
    return cache / "unsent" / f"{hashlib.sha256(address.encode()).hexdigest()[:16]}-{output.name}"


def send_folder(made: Path, output: Path, last: Sequence[str], replaced: Sequence[str] = ()) -> None:
    """Send all files of a folder but hidden and partial ones to an address.

    Args:
        made: The folder; nothing is done if it is where the output belongs.
        output: Where it belongs.
        last: The files that are sent after all others, in this order: their presence says that all is there.
        replaced: What is deleted there unless it is sent anew: names of files, and of folders with a slash.
    """
    if made == output:
        return
    names = sorted(
        name
        for name in (path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file())
        if not any(part.startswith(".") for part in name.split("/")) and ".partial" not in name
    )
    with ThreadPoolExecutor(_SENDERS) as pool:
        list(pool.map(lambda name: send_file(made / name, output / name), set(names) - set(last)))
    for name in list_files(output):
        if name not in names and (name in replaced or f"{name.partition('/')[0]}/" in replaced):
            remove_file(output / name)
    for name in last:
        send_file(made / name, output / name)


def forget_made(made: Path, output: Path) -> None:
    """Delete the folder that was sent."""
    if made != output:
        shutil.rmtree(made, ignore_errors=True)

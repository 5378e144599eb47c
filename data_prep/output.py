"""Write the output folder of a conversion whole or not at all, keeping files whose content stays."""

from __future__ import annotations

import glob
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from data_prep.images.store import link
from llava.common.errors import InputError
from llava.common.files import require_here, sha256

# All that a conversion writes; images are named by sixteen digits of their content's hash.
_WRITTEN = re.compile(
    r"(train|val|calibration|test|manifest|cache|report_schema)\.json|(questions|truth)_(calibration|test)\.jsonl"
    r"|report\.html|images/[0-9a-f]{16}\.jpg"
)


def foreign_files(output: Path) -> Iterator[Path]:
    """Yield the files in an earlier output that no conversion wrote."""
    for name, path in sorted(_files(output).items()) if output.is_dir() else ():
        if not _WRITTEN.fullmatch(name):
            yield path


@contextmanager
def output_folder(output: Path) -> Iterator[Path]:
    """Yield a new folder that becomes `output` when the block succeeds; what was there stays until then.

    A file with the content of the earlier one is that one, with its time; if nothing differs, `output` is
    not touched. What a killed run left behind is cleaned up first: an earlier output that was about to be
    replaced is restored, half-made folders are removed.
    """
    require_here(output)
    output = output.resolve()  # a link to a folder stays a link
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {output}: cannot be written ({error.strerror})") from None
    _clean_up_after_killed_runs(output)
    fresh = output.with_name(f".{output.name}.{os.getpid()}.new")
    old = output.with_name(f".{output.name}.{os.getpid()}.old")
    fresh.mkdir()
    try:
        yield fresh
        if not output.exists():
            fresh.rename(output)
        elif not _link_unchanged(fresh, output):
            output.rename(old)
            fresh.rename(output)
            shutil.rmtree(old)
    finally:
        if old.exists() and not output.exists():
            old.rename(output)
        for folder in (fresh, old):
            shutil.rmtree(folder, ignore_errors=True)


def _link_unchanged(fresh: Path, earlier: Path) -> bool:
    """Replace files in `fresh` by links to those in `earlier` that are equal. Returns whether all are."""
    files = _files(fresh)
    is_same = files.keys() == _files(earlier).keys()
    for name, path in files.items():
        other = earlier / name
        if not other.is_file() or other.is_symlink():
            is_same = False
        elif not path.samefile(other):
            if path.stat().st_size == other.stat().st_size and sha256(path) == sha256(other):
                path.unlink()
                link(other, path)
            else:
                is_same = False
    return is_same


def _files(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not path.is_dir()}


def _clean_up_after_killed_runs(output: Path) -> None:
    """Restore an earlier output and remove half-made folders that killed runs left beside `output`."""
    for path in sorted(output.parent.glob(f".{glob.escape(output.name)}.*")):
        match = re.fullmatch(r"(\d+)\.(new|old)", path.name.removeprefix(f".{output.name}."))
        if match and not _is_running(int(match[1])):
            if match[2] == "old" and not output.exists():
                path.rename(output)
            else:
                shutil.rmtree(path, ignore_errors=True)


def _is_running(process: int) -> bool:
    """Return whether a process is running and is not this very one.

    In a container every run may have the same number.
    """
    if process == os.getpid():
        return False
    if os.name == "nt":  # where os.kill sends Ctrl-C, or ends the process
        return psutil.pid_exists(process)
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's
        return True
    return True

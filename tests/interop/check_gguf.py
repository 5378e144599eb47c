"""Compare GGUF files with the model they were made of, in llama.cpp (llama-cpp-python, extra `llamacpp`):
what `scripts/export.py --format gguf --verify` says, kept in docs/interop/gguf.json.

    python tests/interop/check_gguf.py

In an environment with llama-cpp-python 0.3.8, which computes square pictures right, that is checked and the
results go to docs/interop/gguf-0.3.8.json.
"""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from results import Row, write_check  # noqa: E402

from llava.export.gguf.llamacpp import LlamaCpp  # noqa: E402
from llava.export.gguf.tensors import GgufType, LlamaCppBuild  # noqa: E402
from llava.export.gguf.verify import PartCheck, compare, load_whole  # noqa: E402
from llava.export.gguf.write import Exported, export_gguf  # noqa: E402
from tests.support.family_models import save_family  # noqa: E402

TINY = ROOT / "playground" / "tiny-llava"
LOGITS = "logits with our picture embeddings"
RELEASE = version("llama-cpp-python")
OLD = RELEASE == "0.3.8"


def llama_cpp_of(done: Exported) -> LlamaCpp:
    if not OLD:
        return LlamaCpp(done.text, done.mmproj)
    from llamacpp_038 import OldLlamaCpp

    return OldLlamaCpp(done.text, done.mmproj)


def checks_of(model: Path, folder: Path, kind: GgufType) -> list[PartCheck]:
    """SystemExit if one is FAIL."""
    build: LlamaCppBuild = "stock" if OLD else "current"
    done = export_gguf(model, folder, type=kind, build=build)
    with llama_cpp_of(done) as theirs:
        loaded = load_whole(model)
        side = loaded.model.config.vision_config.image_size
        noise = np.random.default_rng(3).integers(0, 256, (side, side, 3), dtype=np.uint8)
        checks = list(compare(loaded, theirs, kind, build, Image.fromarray(noise)))
    for check in checks:
        print(
            f"{folder.name}: {check.part}: {check.status} {check.difference} {check.reason}",
            flush=True,
        )
    if any(check.status == "FAIL" for check in checks):
        raise SystemExit(f"{folder.name}: llama.cpp computes something else")
    return checks


def row(title: str, kind: GgufType, checks: list[PartCheck]) -> Row:
    """The logits at every place of a prompt that holds our picture embeddings; what llama.cpp is known to do
    otherwise goes into the note."""
    logits = next(check for check in checks if check.part == LOGITS)
    known = [check.part for check in checks if check.status == "KNOWN"]
    note = f"{', '.join(known)}: KNOWN, see below" if known else "its own picture embeddings too"
    return Row(
        form=f"GGUF {kind}, {title}",
        reads=False,
        writes=True,
        checked_against=f"llama-cpp-python {RELEASE}, given our picture embeddings",
        largest_difference=logits.difference,
        note=note,
    )


def main() -> int:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    rows = []
    with TemporaryDirectory() as name:
        work = Path(name)
        for kind in get_args(GgufType):
            rows.append(row("the embedded base", kind, checks_of(TINY, work / f"tiny-{kind}", kind)))
        if not OLD:  # cuts LLaVA-1.6 pictures into tiles, and puts nothing between them
            next_model = save_family(TINY, work / "next", "llava_next-llama")
            rows.append(row("LLaVA-1.6", "f32", checks_of(next_model, work / "next-f32", "f32")))
    versions = {"llama-cpp-python": RELEASE, "gguf": version("gguf")}
    name = f"gguf-{RELEASE}" if OLD else "gguf"
    print(write_check(name, "python tests/interop/check_gguf.py", versions, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())

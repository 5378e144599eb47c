"""Compare answers about pictures with those of a prebuilt llama.cpp, in the package cyllama:
`tests/interop/cyllama_env.sh` makes its environment first.

    python tests/interop/check_cyllama.py --python .interop/cyllama-0.7.0/bin/python

The embedded base is written for each of the builds that `scripts/export.py --llamacpp` knows and asked 100
questions. The result is kept in docs/interop/gguf-cyllama-VERSION.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np
import torch
from PIL import Image

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from asked import MAX_NEW_TOKENS, Asked, our_answers, save_questions  # noqa: E402
from results import Row, write_check  # noqa: E402

from llava.common.records import IMAGE_PLACEHOLDER  # noqa: E402
from llava.export.gguf.tensors import LlamaCppBuild  # noqa: E402
from llava.export.gguf.verify import _check_image, _TorchModel  # noqa: E402
from llava.export.gguf.write import export_gguf  # noqa: E402
from llava.model.builder import LoadedModel, load_model  # noqa: E402

TINY = ROOT / "playground" / "tiny-llava"
FIND = (
    "import cyllama, json, pathlib, importlib.metadata as m; "
    "built = json.loads((pathlib.Path(cyllama.__file__).parent / 'build_config.json').read_text()); "
    "versions = {'cyllama': m.version('cyllama'), 'llama.cpp': built['versions']['llama_cpp_version']}; "
    "print(json.dumps(versions))"
)


def run(python: Path, *arguments: str | Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [str(python), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def their_answers(
    python: Path, folder: Path, loaded: LoadedModel, build: LlamaCppBuild, asked: list[Asked]
) -> dict[str, Any]:
    """Token ids of the answers, and the first picture's embeddings."""
    made = export_gguf(TINY, folder, type="f32", build=build)
    template = loaded.processor.template
    texts = [
        template.text([("human", f"{IMAGE_PLACEHOLDER}\n{one.text}")], generation_prompt=True)
        for one in asked
    ]
    job = {
        "text": str(made.text), "mmproj": str(made.mmproj), "limit": MAX_NEW_TOKENS,
        "stop": [loaded.tokenizer.eos_token_id],
        "questions": [
            {"prompt": text.replace(IMAGE_PLACEHOLDER, "<__media__>"), "picture": str(one.picture)}
            for text, one in zip(texts, asked, strict=True)
        ],
    }  # fmt: skip
    (folder / "job.json").write_text(json.dumps(job))
    run(python, HERE / "cyllama_answers.py", folder / "job.json", folder / "answers.json")
    found: dict[str, Any] = json.loads((folder / "answers.json").read_text())
    return found


def check(python: Path, release: str, work: Path) -> list[Row]:
    loaded = load_model(TINY, device="cpu", dtype=torch.float32)
    asked = save_questions(work)
    ours = our_answers(loaded, asked)
    rows = []
    for build in get_args(LlamaCppBuild):
        theirs = their_answers(python, work / build, loaded, build, asked)
        answers = [loaded.tokenizer.decode(ids).strip() for ids in theirs["answers"]]
        equal = sum(one == other for one, other in zip(answers, ours, strict=True))
        torch_model = _TorchModel(loaded, Image.open(asked[0].picture).convert("RGB"))
        pixels, _ = _check_image(torch_model, np.array(theirs["embeddings"], np.float32), "f32", build)
        print(f"--llamacpp {build}: {equal} of {len(asked)}; {pixels.status}: {pixels.reason}", flush=True)
        rows.append(
            Row(
                form=f"GGUF f32, the embedded base, --llamacpp {build}",
                reads=False,
                writes=True,
                checked_against=f"cyllama {release}: greedy answers about pictures",
                largest_difference=None,
                note=f"{equal} of {len(asked)} equal; picture embeddings: {pixels.status}",
            )
        )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", type=Path, required=True, help="of the environment with cyllama")
    python = parser.parse_args().python.absolute()
    if not python.is_file():
        print(f"error: {python} is absent; tests/interop/cyllama_env.sh makes it", file=sys.stderr)
        return 2
    versions = json.loads(run(python, "-c", FIND))
    with TemporaryDirectory() as folder:
        rows = check(python, f"{versions['cyllama']} (llama.cpp {versions['llama.cpp']})", Path(folder))
    command = (
        f"python tests/interop/check_cyllama.py --python .interop/cyllama-{versions['cyllama']}/bin/python"
    )
    print(write_check(f"gguf-cyllama-{versions['cyllama']}", command, versions, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())

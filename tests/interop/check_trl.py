"""Load and merge an adapter that TRL trained on the embedded base, and compare next-token logits with those
of TRL's own model: `tests/interop/trl_env.sh` makes its environment first.

    python tests/interop/check_trl.py [--python .interop/trl/bin/python]

The result is kept in docs/interop/trl.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from asked import our_answers, save_questions  # noqa: E402
from check_cyllama import run  # noqa: E402
from check_original import BOUND, TINY, our_logits  # noqa: E402
from results import Row, write_check  # noqa: E402

from llava.export.merge import merge_adapters  # noqa: E402
from llava.model.builder import load_model  # noqa: E402

FIND = (
    "import json, importlib.metadata as m; "
    "print(json.dumps({name: m.version(name) for name in ('trl', 'peft', 'transformers', 'torch')}))"
)


def check(python: Path, release: str, work: Path) -> list[Row]:
    asked = save_questions(work, pictures=10, each=2)
    answers = our_answers(load_model(TINY, device="cpu", dtype=torch.float32), asked)
    adapter, merged = work / "adapter", work / "merged"
    questions = [
        {"text": one.text, "picture": str(one.picture), "answer": answer[::-1] or "none"}
        for one, answer in zip(asked, answers, strict=True)
    ]
    job = {"base": str(TINY), "adapter": str(adapter), "questions": questions}
    (work / "job.json").write_text(json.dumps(job))
    run(python, HERE / "trl_adapter.py", work / "job.json", work / "answers.json")
    theirs = torch.tensor(json.loads((work / "answers.json").read_text())["logits"])
    merge_adapters(adapter, merged, model_base=TINY, dtype="float32")
    before = load_model(TINY, device="cpu", dtype=torch.float32)
    rows = []
    for title, model, base in (("loaded", adapter, TINY), ("merged", merged, None)):
        loaded = load_model(model, base, device="cpu", dtype=torch.float32)
        ours = torch.stack([our_logits(loaded, one.picture, one.text)[1] for one in asked])
        largest = float((ours - theirs).abs().max())
        print(f"{title}: largest difference {largest:.1e}", flush=True)
        if largest > BOUND:
            raise SystemExit(f"{title}: logits differ by {largest:.1e}, more than {BOUND:.0e}")
        rows.append(Row(form=f"TRL's adapter, {title}", reads=True, writes=False,
                        checked_against=f"TRL {release}: its model", largest_difference=largest))  # fmt: skip
    moved = max(
        float((our_logits(before, one.picture, one.text)[1] - logits).abs().max())
        for one, logits in zip(asked, theirs, strict=True)
    )
    if moved < 100 * BOUND:
        raise SystemExit(f"the adapter moves logits by {moved:.1e} only: the check proves nothing")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = ROOT / ".interop" / "trl" / "bin" / "python"
    parser.add_argument(
        "--python", type=Path, default=default, help=f"of its environment (default: {default})"
    )
    python = parser.parse_args().python.absolute()
    if not python.is_file():
        print(f"error: {python} is absent; bash tests/interop/trl_env.sh makes it", file=sys.stderr)
        return 2
    versions = json.loads(run(python, "-c", FIND))
    with TemporaryDirectory() as folder:
        rows = check(python, versions["trl"], Path(folder))
    print(write_check("trl", "python tests/interop/check_trl.py", versions, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())

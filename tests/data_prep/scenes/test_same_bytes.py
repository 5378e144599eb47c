"""A seed's photos and boxes are the same bytes on every machine."""

import ast
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from numpy._core._multiarray_umath import (  # type: ignore[attr-defined]
    __cpu_dispatch__,
    __cpu_features__,
)

from data_prep.commands.scenes import write_scenes
from data_prep.scenes.exact import arctan2, cosine, exponential, logarithm, power, sine
from tests.support.paths import REPO

# The quickstart's two sets, 20 photos of each: a block that has every kind of defect.
SETS = ((1, 0.55), (2, 0.5))
EXPECTED = "7fc503311bc58ed024cc9fbba8f81c2c26508b428cd2d4d743cf41420feccb78"
CHANGED = """The renderer draws other photos than those whose scores are published.
If it was changed on purpose, put the new digest into EXPECTED, run the quickstart and update its scores.
If not, something is drawn that depends on the machine, or this is not constraints.txt's Pillow."""


def digest() -> str:
    """Of all files that `python -m data_prep scenes` writes of the sets."""
    total = sha256()
    with TemporaryDirectory() as folder:
        for seed, share in SETS:
            output = Path(folder) / str(seed)
            write_scenes(output, 20, seed, defect_share=share)
            for file in sorted(output.rglob("*.*")):
                total.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
    return total.hexdigest()


def test_photos_and_boxes_are_those_that_are_published() -> None:
    assert digest() == EXPECTED, CHANGED


def vector_units() -> list[str]:
    """What NumPy uses of this processor beyond what every one of its kind has."""
    return [name for name in __cpu_dispatch__ if __cpu_features__[name]]


def test_photos_do_not_depend_on_the_vector_units() -> None:
    used = vector_units()
    if not used:
        pytest.skip("NumPy uses no more than its baseline here")
    code = "from tests.data_prep.scenes import test_same_bytes as t; print(t.digest(), *t.vector_units())"
    environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(used)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [EXPECTED]


# Each rounds once or not at all, and so in one way: no compiler can fuse it with another operation, and no
# processor has its own way, as they have of np.dot, np.exp, rng.normal, image.resize or draw.polygon.
ALLOWED = {
    "np": """abs arange asarray ascontiguousarray bincount broadcast_arrays ceil clip concatenate copyto
        cumsum diff empty flatnonzero floor frexp full full_like ldexp maximum minimum moveaxis ones random
        repeat s_ sort sqrt square stack where zeros zeros_like inf ndarray generic bool_ float32 float64
        int8 int16 int32 int64 intp uint8 uint16 uint32 uint64""",
    "random": "Generator PCG64",
    "_bits": "random integers permutation",
    "math": "ceil factorial floor pi prod sqrt",
    "Image": "Image fromarray merge",
    "ImageDraw": "Draw ImageDraw",
    "draw": "ellipse line rectangle",
}
FORBIDDEN_METHODS = {
    *("dot", "sum", "mean", "std", "var", "prod", "cumprod", "trace", "round"),
    *("blend", "filter", "reduce", "resize", "rotate", "thumbnail", "transform", "convert"),
}
FORBIDDEN_IMPORTS = {"scipy", "random", "cmath", "ImageFilter", "ImageChops", "numpy.linalg"}


@pytest.mark.parametrize("module", sorted((REPO / "data_prep" / "scenes").glob("*.py")), ids=lambda p: p.stem)
def test_nothing_is_used_that_rounds_otherwise_elsewhere(module: Path) -> None:
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        where = f"{module.name}, line {getattr(node, 'lineno', 0)}: {ast.unparse(node)} may differ elsewhere"
        match node:
            case ast.Attribute(value=value, attr=name):
                owner = getattr(value, "id", getattr(value, "attr", ""))
                known = ALLOWED.get(owner)
                assert name in known.split() if known else name not in FORBIDDEN_METHODS, where
                assert (owner, name) != ("np", "random") or module.stem == "chance", where
            case ast.BinOp(op=ast.MatMult()):
                raise AssertionError(where)
            case ast.BinOp(left=left, op=ast.Pow()):  # of whole numbers alone; see exact.power
                assert ast.unparse(left).strip("-()").isdigit(), where
            case ast.Import(names=names):
                assert not {alias.name for alias in names} & FORBIDDEN_IMPORTS, where
            case ast.ImportFrom(module=source, names=names):
                assert source not in ("math", "numpy"), f"{where}: import the module, so that its use is seen"
                assert not {source, *(alias.name for alias in names)} & FORBIDDEN_IMPORTS, where


def test_elementary_functions() -> None:
    x = np.linspace(-60, 60, 5001)
    y = np.linspace(3, -5, 5001)
    assert np.abs(sine(x) - np.sin(x)).max() < 1e-6
    assert np.abs(cosine(x) - np.cos(x)).max() < 1e-6
    assert np.abs(arctan2(y, x) - np.arctan2(y, x)).max() < 1e-6
    assert np.abs(exponential(x) / np.exp(x) - 1).max() < 1e-6
    positive = np.linspace(1e-4, 500, 5001)
    assert np.abs(logarithm(positive) - np.log(positive)).max() < 1e-6
    assert np.abs(power(positive, 0.8) / positive**0.8 - 1).max() < 1e-6
    assert power(np.zeros(1), 1.2)[0] < 1e-30
    assert isinstance(sine(0.5), float)

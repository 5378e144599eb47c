"""Files for llama.cpp's builds that put CLIP's class token behind the patches, and for those that do not."""

import numpy as np
import pytest

from llava.export.gguf import verify
from llava.model.builder import load_model
from llava_inspect import export
from tests.llava.export.gguf.test_write import tensors_of
from tests.support.family_models import save_family
from tests.support.gguf_files import values_of

POSITIONS = "v.position_embd.weight"


@pytest.fixture(scope="module")
def torch_model(tiny_model_dir, tmp_path_factory):
    """9 patches."""
    folder = save_family(tiny_model_dir, tmp_path_factory.mktemp("class token") / "model", "llava-llama")
    loaded = load_model(folder, device="cpu")
    return verify._TorchModel(loaded, verify._read_image(loaded, None))


@pytest.mark.parametrize("asked", ["auto", "current", "stock"])
def test_the_command_moves_positions_for_the_builds_asked_for(tmp_path, tiny_model_dir, asked):
    out = tmp_path / "out"
    flags = ["--format", "gguf", "--type", "f32", "--model-path", str(tiny_model_dir), "--output", str(out)]
    assert export.main([*flags, "--llamacpp", asked]) == 0
    own = load_model(tiny_model_dir, device="cpu").model.model.vision_tower.embeddings
    rows = own.position_embedding.weight.detach().float().numpy()
    written = tensors_of(out / "mmproj-f32.gguf")[POSITIONS]
    build = "stock" if asked == "stock" else "current"
    assert (written == (rows if asked == "stock" else np.concatenate([rows[1:], rows[:1]]))).all()
    assert values_of(out / "mmproj-f32.gguf")["llava_inspect.llamacpp"] == build
    assert verify.read_build(out / "mmproj-f32.gguf") == build


def test_only_the_first_patch_is_lost(torch_model):
    """With the class token behind, moved positions give every other patch what it should be, a place early;
    unmoved ones give none."""
    right = torch_model.embeddings()
    bound = 1e-4 * np.abs(right).max()
    moved = torch_model.embeddings(behind=True, build="current")
    assert np.abs(moved[:-1] - right[1:]).max() < bound
    unmoved = torch_model.embeddings(behind=True, build="stock")
    assert np.abs(unmoved[:-1] - right[1:]).max(axis=1).min() > bound


@pytest.mark.parametrize(
    ("build", "behind", "status", "reason"),
    [
        ("stock", False, "PASS", "9 tokens"),
        ("stock", True, "KNOWN", "export with --llamacpp current"),
        ("current", True, "KNOWN", "the top left patch is lost"),
        ("current", False, "FAIL", "export with --llamacpp stock"),
    ],
)
def test_the_verdict_says_which_files_a_build_needs(torch_model, build, behind, status, reason):
    theirs = torch_model.embeddings(behind=behind, build=build)
    check, explained = verify._check_image(torch_model, theirs, "f32", build)
    assert check.status == status
    assert reason in check.reason
    assert (explained is None) == (status != "KNOWN")

"""Folders of diffusion models: loaded as diffusers saved them, refused in one line where they are not."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from llava.common.errors import InputError
from llava.common.masks import Pixels
from llava.painting.diffusion import BlendedDiffusion, DiffusionSettings, Wish
from llava.painting.diffusion_model import DiffusionModel, load_diffusion, wanted_files
from tests.support.hub_server import hub_server
from tests.support.tiny_diffusers import save_tiny_diffusion


def test_the_model_says_what_it_is(sd: DiffusionModel, sdxl: DiffusionModel) -> None:
    assert (sd.side, sd.cell, sd.is_xl, len(sd.tokenizers)) == (64, 2, False, 1)
    assert (sdxl.side, sdxl.cell, sdxl.is_xl, len(sdxl.tokenizers)) == (64, 2, True, 2)
    assert sd.name == "tiny-sd"


def test_prompts_are_read_as_the_pipeline_reads_them(model: DiffusionModel) -> None:
    wished, unwished = model.read_prompt("rust", "", guided=True)
    assert wished.tokens.shape == unwished.tokens.shape == (1, 77, 64 if model.is_xl else 32)
    assert (wished.pooled is not None) == model.is_xl
    assert len(model.read_prompt("rust", "blue", guided=False)) == 1
    other = model.read_prompt("rust", "blue", guided=True)[1]
    assert not torch.equal(other.tokens, unwished.tokens)


def painted(model: DiffusionModel) -> Pixels:
    """Return the pixels of a square that a model has painted on black."""
    pixels, mask = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), bool)
    mask[20:40, 20:40] = True
    painter = BlendedDiffusion(model, DiffusionSettings(steps=2))
    return painter.paint([Wish(pixels, mask, "rust", 0)])[0][mask]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_paints_as_float32_does(
    sdxl: DiffusionModel, sdxl_folder: Path, dtype: torch.dtype
) -> None:
    """The UNet's and the encoders'; latents, and the VAE, are never in half precision."""
    half = painted(load_diffusion(sdxl_folder, device="cpu", dtype=dtype))
    assert np.abs(half.astype(int) - painted(sdxl)).mean() < 10


def test_a_model_that_predicts_mixtures_paints(tmp_path: Path) -> None:
    """As SD 2.1 does."""
    model = load_diffusion(save_tiny_diffusion(tmp_path / "v", predicts="v_prediction"), device="cpu")
    assert painted(model).any()


def test_weights_in_half_precision_alone_are_loaded(sd_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "half"
    shutil.copytree(sd_folder, folder)
    for path in list(folder.rglob("*.safetensors")):
        path.rename(path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))
    model = load_diffusion(folder, device="cpu", dtype=torch.bfloat16)
    assert model.read_prompt("rust", "", guided=False)[0].tokens.dtype == torch.bfloat16


def test_a_hub_name_is_fetched(sd_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is loaded: no single file of all weights, no checker, no .bin."""
    published = tmp_path / "hub" / "owner" / "tiny-sd"
    shutil.copytree(sd_folder, published)
    for name in ("all.safetensors", "unet/diffusion_pytorch_model.bin", "safety_checker/model.safetensors"):
        (published / name).parent.mkdir(exist_ok=True)
        (published / name).write_bytes(b"0")
    with hub_server(tmp_path / "hub", monkeypatch) as server:
        assert load_diffusion("owner/tiny-sd", device="cpu").name == "tiny-sd"
    assert "unet/diffusion_pytorch_model.safetensors" in server.downloaded
    assert not [
        name for name in server.downloaded if name.endswith(".bin") or "safety" in name or "all" in name
    ]


def test_half_precision_is_fetched_where_it_is_computed_in() -> None:
    names = ["model_index.json", "unet/config.json", "unet/a.fp16.safetensors", "unet/a.safetensors"]
    assert wanted_files(names, half=True) == [*names[:1], "unet/a.fp16.safetensors", "unet/config.json"]
    assert wanted_files(names, half=False) == [*names[:1], "unet/a.safetensors", "unet/config.json"]
    assert wanted_files(names[:3], half=False) == [*names[:1], "unet/a.fp16.safetensors", "unet/config.json"]
    assert wanted_files([*names[:2], "unet/a.safetensors"], half=True)[1] == "unet/a.safetensors"


def index_with(folder: Path, **changes: object) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_is_no_such_folder_is_refused(sd_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder of a diffusion model"):
        load_diffusion(tmp_path / "none", device="cpu")
    with pytest.raises(InputError, match=r"no model_index\.json in it"):
        load_diffusion(tmp_path, device="cpu")
    folder = tmp_path / "copy"
    shutil.copytree(sd_folder, folder)
    index_with(folder, _class_name="FluxPipeline")
    with pytest.raises(InputError, match="a FluxPipeline is not supported"):
        load_diffusion(folder, device="cpu")
    index_with(folder, _class_name="StableDiffusionPipeline")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match="cannot be loaded"):
        load_diffusion(folder, device="cpu")
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(InputError, match=r"unet: no weights in \.safetensors"):
        load_diffusion(folder, device="cpu")


def test_without_diffusers_there_is_one_line(sd_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(InputError, match=r"needs diffusers: .*synth"):
        load_diffusion(sd_folder)

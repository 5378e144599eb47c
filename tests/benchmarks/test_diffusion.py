"""The benchmark of diffusion runs, on a shape for a CPU, and its real shapes are those of the real models."""

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("diffusers")

from benchmarks.diffusion import SHAPES, main, make_model


def test_it_measures_and_changes_nothing_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.diffusion.PHOTO", (400, 300))
    output = tmp_path / "diffusion.json"
    arguments = ["--shape", "tiny", "--steps", "3", "--batches", "2", "1", "--repeats", "1"]
    assert main([*arguments, "--output", str(output)]) == 0
    written = json.loads(output.read_text())
    assert [row["batch"] for row in written["rows"]] == [1, 2] and written["kept"]
    for row in written["rows"]:
        parts = row["before"] + row["steps"] + row["after"]
        assert row["seconds"] == pytest.approx(parts) and row["steps"] > 0
    assert "pictures/min" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("shape", "unet", "vae"), [("sdxl", 2_567_463_684, 83_653_863), ("sd15", 859_520_964, 83_653_863)]
)
def test_shapes_are_the_real_ones(shape: str, unet: int, vae: int) -> None:
    """Counted without memory; what the models' authors published."""
    model = make_model(SHAPES[shape], "meta", torch.float16)
    pipeline = model._pipeline
    assert sum(p.numel() for p in pipeline.unet.parameters()) == unet
    assert sum(p.numel() for p in pipeline.vae.parameters()) == vae
    assert pipeline.unet.dtype == torch.float16 and pipeline.vae.dtype == torch.float32
    assert (model.side, model.cell) == (1024 if shape == "sdxl" else 512, 8)

"""Tiny diffusion models and SAM, saved and loaded once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # who tests boxes need not wait for PyTorch
    from llava.painting.diffusion_model import DiffusionModel
    from llava.painting.sam import Sam


@pytest.fixture(scope="session")
def sd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.support.tiny_diffusers import save_tiny_diffusion

    return save_tiny_diffusion(tmp_path_factory.mktemp("diffusion") / "tiny-sd")


@pytest.fixture(scope="session")
def sd(sd_folder: Path) -> DiffusionModel:
    from llava.painting.diffusion_model import load_diffusion

    return load_diffusion(sd_folder, device="cpu")


@pytest.fixture(scope="session")
def sdxl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.support.tiny_diffusers import save_tiny_diffusion

    return save_tiny_diffusion(tmp_path_factory.mktemp("diffusion") / "tiny-sdxl", xl=True)


@pytest.fixture(scope="session")
def sdxl(sdxl_folder: Path) -> DiffusionModel:
    from llava.painting.diffusion_model import load_diffusion

    return load_diffusion(sdxl_folder, device="cpu")


@pytest.fixture(params=["sd", "sdxl"])
def model(request: pytest.FixtureRequest) -> DiffusionModel:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def sam_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.support.tiny_sam import save_tiny_sam

    return save_tiny_sam(tmp_path_factory.mktemp("sam") / "tiny-sam")


@pytest.fixture(scope="session")
def sam(sam_folder: Path) -> Sam:
    from llava.painting.sam import load_sam

    return load_sam(sam_folder, device="cpu")


@pytest.fixture(scope="session")
def sam2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.support.tiny_sam import save_tiny_sam2

    return save_tiny_sam2(tmp_path_factory.mktemp("sam") / "tiny-sam2")


@pytest.fixture(scope="session")
def sam2(sam2_folder: Path) -> Sam:
    from llava.painting.sam import load_sam

    return load_sam(sam2_folder, device="cpu")


@pytest.fixture(params=["sam", "sam2"])
def model_of_sam(request: pytest.FixtureRequest) -> Sam:
    return request.getfixturevalue(request.param)

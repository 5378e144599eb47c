"""The published schema is true: schemathesis asks what it allows, and what it does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from llava.serve.http.limits import Limits
from tests.support.served import served
from tests.support.small_model import random_model

ROUTES = {
    "/v1/chat/completions", "/v1/models", "/v1/models/{model}", "/health", "/ready", "/metrics",
    "/getAltText", "/getAltTexts", "/getAltText_time", "/getBestPictures", "/config",
}  # fmt: skip


@pytest.mark.slow
def test_schemathesis_finds_nothing(tiny_model_dir: Path, tmp_path: Path) -> None:
    loaded = random_model(tiny_model_dir)
    with served(loaded, Limits(max_new_tokens=8)) as server:
        assert set(httpx.get(f"{server.url}/openapi.json").json()["paths"]) == ROUTES
        command = [
            sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()",
            "run", f"{server.url}/openapi.json", "--phases", "coverage,fuzzing", "--max-examples", "12",
            "--continue-on-failure", "--seed", "1", "--no-color",
            # the schema cannot say that a conversation's turns alternate, nor that bytes are a picture
            "--exclude-checks", "positive_data_acceptance",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=200)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert f"{len(ROUTES)} selected" in done.stdout

"""Fixtures shared by the tests: files to read, the real pictures (where present), the embedded base model,
a browser."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from PIL import Image

from llava.common.errors import collect_less
from tests.support.browser import installed_chromium
from tests.support.paths import REPO

# A busy machine may take seconds over an example that takes milliseconds on an idle one.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# A shell's background job (a CI runner may be one) starts with SIGINT ignored, and so would every command
# that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

collect_less()  # as every command does

LONGEST = ["test_quickstart_learns", "test_readmes_road", "test_hostile_requests_cost_honest_clients_nothing"]

# Tests that run side by side are told of some terminal's width; what they print goes to no terminal.
os.environ.pop("COLUMNS", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests start first, so that no core waits for them at the end."""
    items.sort(key=lambda item: LONGEST.index(item.name) if item.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def repo() -> Path:
    return REPO


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real pictures that developers keep beside the checkout; not part of the project."""
    folder = REPO.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: this test needs the developers' real pictures")
    return folder


@pytest.fixture(scope="session")
def tiny_model_dir() -> Path:
    return REPO / "playground" / "tiny-llava"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium, driven by Playwright. Of a module: its loop may not run beside other tests' own."""
    sync_api = pytest.importorskip("playwright.sync_api")
    program = installed_chromium()
    with sync_api.sync_playwright() as playwright:
        if program is None and not Path(playwright.chromium.executable_path).is_file():
            pytest.skip("no Chromium: install one, or run `playwright install chromium`")
        opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    """Writes below tmp_path: a picture of 100x50 where the name says so, else text, or a value as JSON."""

    def write(name: str, content: Any = "") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in (".jpg", ".png", ".bmp"):
            Image.new("RGB", (100, 50)).save(path)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return write


@pytest.fixture(autouse=True)
def own_tracker_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training run says in the environment where its trackers write; the next test's run starts afresh."""
    for name in ("WANDB_DIR", "WANDB_PROJECT", "TENSORBOARD_LOGGING_DIR"):
        monkeypatch.setenv(name, "")  # so that monkeypatch puts back that it was absent
        monkeypatch.delenv(name)

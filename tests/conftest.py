"""Fixtures shared by the tests: the real pictures (where present) and the embedded base model."""

import signal
from pathlib import Path

import pytest
from hypothesis import settings

REPO = Path(__file__).resolve().parents[1]

# A busy machine may take seconds over an example that takes milliseconds on an idle one.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# A shell's background job (a CI runner may be one) starts with SIGINT ignored, and so would every command
# that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


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
